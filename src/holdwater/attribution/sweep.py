"""Visit all objects that the collector tracks, a few thousand at a time, without keeping the newest steps' alive.

`gc.get_objects` is one call that cannot be divided (30 ns an object), and its list keeps alive all that it refers
to. The collector keeps its objects in the order of their age, and moves them only to the end. So an object of ours
that was created some steps earlier, the mark, divides the list: objects after it may belong to a step, and are
visited and released in the first turn; objects before it have outlived whole steps, and are visited in the turns
that follow, the newest first.

Source: CPython, Modules/gcmodule.c (3.11): generations are lists, and a survivor is put at the end of the next.
"""

import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

from holdwater.attribution.kinds import are_ordinary, is_ordinary, note_metaclasses, with_subclasses
from holdwater.attribution.turns import Turn

CHUNK = 2000
"""Objects that are visited between two readings of the clock."""
WINDOW = 4096
"""Objects that are searched for the mark at a time."""


def all_objects() -> list[Any]:
    """All that the collector tracks, the oldest first."""
    newest = gc.get_objects(generation=0)  # first: later it would hold the list that it is added to, forever
    newer = gc.get_objects(generation=1)
    objects = gc.get_objects(generation=2)
    objects += newer
    objects += newest
    return objects


class Sweep:
    """One pass over all objects, the newest first."""

    def __init__(self, turn: Turn, objects: list[Any], mark: object | None = None) -> None:
        """Begin with a list that was made in this turn.

        Args:
            turn: Its end returns control to the training.
            objects: From `all_objects`; visited objects are removed from it.
            mark: A tracked object that is some steps old; without one all is visited in this turn.
        """
        note_metaclasses()
        self.total = len(objects)
        """How many there are."""
        self._turn = turn
        self._objects = objects
        self.old = 0 if mark is None else _index(objects, mark)
        """How many of them are older than the mark."""

    def take_out(self, base: type, *, older: bool) -> list[Any]:
        """Remove the objects of a class and its subclasses from the list, and return them.

        Objects that are not `ordinary` are removed too.

        Args:
            base: The class.
            older: Only those older than the mark; else only the others.
        """
        kinds, found = with_subclasses(base), list[Any]()
        first = 0 if older else self.old
        last = self.old if older else len(self._objects)
        if not are_ordinary(islice(self._objects, first, last)):
            self._objects[first:last] = [item if is_ordinary(item) else None for item in self._objects[first:last]]
        some = islice(self._objects, first, last)
        marks = bytearray(map(kinds.__contains__, map(type, some)))
        place = marks.find(1)
        while place >= 0:
            found.append(self._objects[first + place])
            self._objects[first + place] = None
            place = marks.find(1, place + 1)
        return found

    def chunks(self) -> Iterator[list[Any] | None]:
        """Some objects at a time; None where the turn may end, and before those older than the mark."""
        objects = self._objects
        while objects:
            start = max(len(objects) - CHUNK, self.old if len(objects) > self.old else 0, 0)
            chunk = objects[start:]
            del objects[start:]
            yield chunk
            if 0 < len(objects) == self.old or (self._turn.over and 0 < len(objects) < self.old):
                del chunk
                yield None


def _index(objects: list[Any], wanted: object) -> int:
    """The index of an object in a list, by identity, searched from the end; 0 if it is absent."""
    for end in range(len(objects), 0, -WINDOW):
        start = max(end - WINDOW, 0)
        keys = list(map(id, objects[start:end]))
        if id(wanted) in keys:
            return start + keys.index(id(wanted))
    return 0
