"""Keep a long training run inside its memory budget, and show that it did."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdwater.attribution.inventory import inventory
    from holdwater.frameworks.transformers.callback import HoldwaterCallback
    from holdwater.guard.guard import Guard
    from holdwater.notebook.extension import load_ipython_extension, unload_ipython_extension
    from holdwater.notebook.whole_session import watch_notebook
    from holdwater.observe.agent.session import step
    from holdwater.resume.batches import batches
    from holdwater.resume.resumable import resumable, steps
    from holdwater.units import Bytes, format_size, parse_size

__all__ = [
    "Bytes",
    "Guard",
    "HoldwaterCallback",
    "__version__",
    "batches",
    "format_size",
    "inventory",
    "load_ipython_extension",
    "parse_size",
    "resumable",
    "step",
    "steps",
    "unload_ipython_extension",
    "watch_notebook",
]

__version__ = "0.1.0"

_HOMES = {
    "Bytes": "holdwater.units",
    "Guard": "holdwater.guard.guard",
    "HoldwaterCallback": "holdwater.frameworks.transformers.callback",
    "batches": "holdwater.resume.batches",
    "format_size": "holdwater.units",
    "inventory": "holdwater.attribution.inventory",
    "load_ipython_extension": "holdwater.notebook.extension",
    "parse_size": "holdwater.units",
    "resumable": "holdwater.resume.resumable",
    "step": "holdwater.observe.agent.session",
    "steps": "holdwater.resume.resumable",
    "unload_ipython_extension": "holdwater.notebook.extension",
    "watch_notebook": "holdwater.notebook.whole_session",
}
"""Where each public name lives; it is imported when it is first used, so that `import holdwater` costs nothing."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module 'holdwater' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as above

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
