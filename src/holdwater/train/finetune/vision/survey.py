"""What pictures a run will meet: headers are read before it begins, so that a wrong one does not end it later.

Of each picture its size is held (8 bytes), of each example its tokens (4 bytes); of many broken ones the first are
told and the others counted.
"""

import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from holdwater.errors import DataError
from holdwater.train.finetune.vision.pictures import Picture

TOLD = 20
"""Broken pictures whose messages are kept."""
BARS = 5
"""Lines of a histogram, besides one for what is over the limit."""
WIDTH = 30
"""Characters of its longest bar."""


@dataclass(slots=True)
class Survey:
    """What was found."""

    examples: int = 0
    """Examples whose pictures were opened."""
    complete: bool = True
    """Whether these are all; False where the time was up."""
    broken: list[tuple[int, str]] = field(default_factory=list)
    """Number of the row and message of the first broken pictures."""
    broken_count: int = 0
    """All broken pictures."""
    widths: "array[int]" = field(default_factory=lambda: array("i"))
    heights: "array[int]" = field(default_factory=lambda: array("i"))
    """Pixels of each picture that is not broken, as it is shown."""
    counts: "array[int]" = field(default_factory=lambda: array("i"))
    """Tokens of the pictures of each example that has some, none of them broken; empty if nobody counts them."""

    @property
    def summary(self) -> str:
        """How many pictures there are, and how large the smallest and the largest is."""
        if not self.widths:
            return "no picture"
        (width, height), (most_width, most_height) = (
            choose(zip(self.widths, self.heights, strict=True), key=lambda size: size[0] * size[1])
            for choose in (min, max)
        )
        return (
            f"{len(self.widths):,} pictures in {self.examples:,} examples, from {width:,} × {height:,} to "
            f"{most_width:,} × {most_height:,} pixels"
        )


def survey(
    rows: Iterable[tuple[int, Sequence[Picture]]],
    *,
    seconds: float,
    tokens: Callable[[int, int], int] | None = None,
) -> Survey:
    """Open the headers of pictures.

    Args:
        rows: The number of each row, for what is told, and its pictures.
        seconds: Stop after so long.
        tokens: How many a picture of some width and height takes; None if they are not to be counted.

    Returns:
        What was found; nothing of it is raised.
    """
    until, found = time.monotonic() + seconds, Survey()
    for number, pictures in rows:
        if time.monotonic() > until:
            found.complete = False
            break
        found.examples += 1
        sizes = [size for picture in pictures if (size := _size(picture, number, found)) is not None]
        if tokens is not None and sizes and len(sizes) == len(pictures):
            found.counts.append(sum(tokens(width, height) for width, height in sizes))
    return found


def _size(picture: Picture, number: int, found: Survey) -> tuple[int, int] | None:
    """The size of a picture, which is noted; None where it is broken, which is noted too."""
    try:
        width, height = picture.size()
    except DataError as error:
        found.broken_count += 1
        if len(found.broken) < TOLD:
            found.broken.append((number, str(error)))
        return None
    found.widths.append(width)
    found.heights.append(height)
    return width, height


def histogram(counts: Sequence[int], *, limit: int) -> str:
    """Show how many examples have how many tokens.

    Args:
        counts: Tokens of each example.
        limit: The most that an example may have; those over it have a line of their own.

    Returns:
        A line for each range, with a bar; empty where there is nothing to show.
    """
    within = [count for count in counts if count <= limit]
    lines: list[tuple[str, int]] = []
    if within:
        step = _round_step((max(within) - min(within)) // BARS + 1)
        first = min(within) // step
        edges = [number * step for number in range(first, max(within) // step + 2)]
        tally = [0] * (len(edges) - 1)
        for count in within:
            tally[count // step - first] += 1
        names = [f"{low:,} to {high - 1:,}" if step > 1 else f"{low:,}" for low, high in pairwise(edges)]
        lines = list(zip(names, tally, strict=True))
    if over := len(counts) - len(within):
        lines.append((f"over {limit:,}", over))
    longest = max((len(name) for name, _ in lines), default=0)
    most = max((many for _, many in lines), default=0)
    return "\n".join(
        f"{name:>{longest}}  {many:>{len(f'{most:,}')},}  {'█' * -(-many * WIDTH // most)}".rstrip()
        for name, many in lines
    )


def _round_step(least: int) -> int:
    """The next of 1, 2, 5, 10, 20, … that is not smaller."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10
