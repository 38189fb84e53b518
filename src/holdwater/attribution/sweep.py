"""All objects that the collector tracks, a few at a time, none of them kept alive from one turn to the next.

`gc.get_objects` is one call that cannot be divided (30 ns an object). The list that it returns refers to every
tensor and to all that holds one, so it is let go of at the end of a turn, and made anew in the next. The collector
keeps its objects in the order of their age: new ones come at the end, so from the end it is gone towards the
beginning, and the place is found again by an object that can be held without harm.

Source: CPython, Modules/gcmodule.c (3.11): generations are lists, and a survivor is put at the end of the next.
"""

import gc
import types
from collections.abc import Iterator
from typing import Any

from holdwater.attribution.turns import Turn

CHUNK = 2000
"""Objects that are looked at between two looks at the clock."""
WINDOW = 4096
"""Objects among which the place is looked for at a time."""
MOST_RESTARTS = 1
"""How often the way is begun anew, where a full collection has changed the order."""
_ANCHORS = frozenset((types.BuiltinFunctionType, types.GetSetDescriptorType, types.MethodDescriptorType, type))
"""Kinds of objects that live long and hold no data."""


def all_objects() -> list[Any]:
    """All that the collector tracks, the oldest first."""
    objects = gc.get_objects(generation=2)
    objects += gc.get_objects(generation=1)
    objects += gc.get_objects(generation=0)
    return objects


class Sweep:
    """One way through all objects, the newest first."""

    def __init__(self, turn: Turn, objects: list[Any]) -> None:
        """Begin with a list that was made in this turn.

        Args:
            turn: Says when the training is to go on.
            objects: As `all_objects` gives them; the caller lets go of them too.
        """
        self.total = len(objects)
        """How many there were in the first turn."""
        self.restarts = 0
        self._turn = turn
        self._objects: list[Any] | None = objects
        self._at = len(objects)
        self._anchor: Any = None
        self._offset = 0

    def chunks(self) -> Iterator[list[Any] | None]:
        """Some objects at a time; None where the turn is over, and the caller is to keep nothing."""
        while self._at > 0:
            if self._objects is None:
                before = self._turn.spent
                self._objects = all_objects()
                self._find_place(self._objects)
                self._turn.grant(self._turn.spent - before)
            start = max(self._at - CHUNK, 0)
            chunk = self._objects[start : self._at]
            self._at = start
            yield chunk
            if self._turn.over and self._at > 0:
                self._anchor = next((item for item in chunk if type(item) in _ANCHORS), None)
                self._offset = 0 if self._anchor is None else _index(chunk, self._anchor)
                del chunk
                self._objects = None
                yield None
        self._objects = self._anchor = None

    def _find_place(self, objects: list[Any]) -> None:
        """Find how far the way has come in a new list: what was freed since has moved the rest to the left."""
        expected = min(self._at + self._offset, len(objects) - 1)
        if self._anchor is None:
            self._at = min(self._at, len(objects))
            return
        end = expected + 1
        while end > 0:
            start = max(end - WINDOW, 0)
            found = _index(objects[start:end], self._anchor)
            if found >= 0:
                self._at = max(start + found - self._offset, 0)
                return
            end = start
        if self.restarts < MOST_RESTARTS:
            self.restarts += 1
            self._at = len(objects)
        self._at = min(self._at, len(objects))


def _index(objects: list[Any], wanted: object) -> int:
    """Where an object is in a list, by identity alone; -1 where it is not."""
    try:
        return list(map(id, objects)).index(id(wanted))
    except ValueError:
        return -1
