"""Record for which arguments MLX has traced compiled functions: it keeps each trace as long as the function.

A function is known by the place of its code: one that is made again at each step is traced again each time.

Source: MLX documentation, "Compilation": a change of shape, type, number of inputs or constant compiles again.
"""

import functools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from holdwater.attribution.kinds import ids_of, is_a, is_one_of, name_of
from holdwater.attribution.mlx_arrays import array_class, leaves

MOST_SIGNATURES, MOST_PLACES = 10_000, 1000
"""Most arguments of one function, and functions, that are distinguished."""
MOST_STEPS = 256
"""Steps of a function's newest traces that are kept."""
MOST_TOLD = 4
"""Arguments that are named."""


@dataclass(slots=True)
class TracedPlace:
    """The code of a compiled function, and its traces."""

    function: str
    file: str
    line: int
    traces: int = 0
    told: str = ""
    """The arguments of the newest trace, in words."""
    before: str = ""
    """The arguments of the trace before."""
    steps: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_STEPS))
    """The steps of the newest traces."""


_places: dict[tuple[str, str, int], TracedPlace] = {}


class FunctionTraces:
    """The traces of one compiled function."""

    def __init__(self, function: Any) -> None:  # noqa: ANN401 - whatever can be called
        """Begin.

        Args:
            function: What is compiled.
        """
        while is_a(function, functools.partial):
            function = functools.partial.func.__get__(function)
        code = getattr(function, "__code__", None)
        key = (name_of(type(function)), "", 0)
        if code is not None:
            key = (str(function.__name__), str(code.co_filename), int(code.co_firstlineno))
        known = _places.get(key) or TracedPlace(*key)
        self._place = known if len(_places) >= MOST_PLACES else _places.setdefault(key, known)
        self._signatures: set[tuple[object, ...]] = set()

    def note(self, values: list[Any], step: int) -> None:
        """Record a call: it was traced if no call before had such arguments.

        Args:
            values: The arguments.
            step: The newest.
        """
        signature = _signature(values)
        if signature in self._signatures or len(self._signatures) >= MOST_SIGNATURES:
            return
        self._signatures.add(signature)
        place = self._place
        place.traces += 1
        place.steps.append(step)
        place.before, place.told = place.told, ", ".join(map(_in_words, signature[:MOST_TOLD]))


def traces_so_far() -> int:
    """How many traces were recorded."""
    return sum(place.traces for place in _places.values())


def traced_again(since: int) -> list[dict[str, Any]]:
    """The functions that were traced more than once, as `recompiles.recompilations` describes them.

    Args:
        since: The step after which a trace counts as `lately`.
    """
    return [
        {
            "function": place.function,
            "file": place.file,
            "line": place.line,
            "often": place.traces - 1,
            "guard": f"the arguments are {place.before}",
            "lately": sum(step > since for step in place.steps),
        }
        for place in _places.values()
        if place.traces > 1
    ]


def _in_words(part: object) -> str:
    """The shape of an array, or a constant."""
    return str(part[0]) if type(part) is tuple else repr(part)


def _signature(values: list[Any]) -> tuple[object, ...]:
    """The shapes and types of arrays, and plain values."""
    base, found = array_class(), list[object]()
    for value in values:
        if is_one_of(value, _CONSTANTS):
            found.append(value)
        found += [(base.shape.__get__(one), base.dtype.__get__(one)) for one in leaves(value)]
    return tuple(found)


_CONSTANTS = ids_of(bool, int, str, float, type(None))
