"""How many tokens the examples of a run have, as text."""

from collections.abc import Sequence
from itertools import pairwise

BARS = 5
"""Lines of a histogram, besides one for what is over the limit."""
WIDTH = 30
"""Characters of its longest bar."""


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
