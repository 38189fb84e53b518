"""Stand-ins for rehearsals and tests (a clock moved by hand, a machine short of memory), and our pytest plugin."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdwater.testing.stand_in_metal import StandInMetal
    from holdwater.testing.stand_ins import ManualClock, StandInMemory, make_sample

__all__ = ["ManualClock", "StandInMemory", "StandInMetal", "make_sample"]

_HOMES = {
    "ManualClock": "holdwater.testing.stand_ins",
    "StandInMemory": "holdwater.testing.stand_ins",
    "StandInMetal": "holdwater.testing.stand_in_metal",
    "make_sample": "holdwater.testing.stand_ins",
}
"""Where each public name lives: the pytest plugin is in this package, and every test run loads it."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module 'holdwater.testing' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as above

    return getattr(import_module(_HOMES[name]), name)
