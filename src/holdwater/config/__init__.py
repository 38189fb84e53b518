"""One configuration from defaults, a profile, a YAML file, the environment and flags; flags are strongest."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdwater.config.profile import Profile, choose_profile, load_profile
    from holdwater.config.sources import Config, gather

__all__ = ["Config", "Profile", "choose_profile", "gather", "load_profile"]

_HOMES = {
    "Config": "holdwater.config.sources",
    "Profile": "holdwater.config.profile",
    "choose_profile": "holdwater.config.profile",
    "gather": "holdwater.config.sources",
    "load_profile": "holdwater.config.profile",
}
"""Where each name is defined; it is imported on first use, for the flags of a command need no YAML."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any name of this package
    if name not in _HOMES:
        raise AttributeError(f"module 'holdwater.config' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as above

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
