"""Find out whether a picture's features have the same bits wherever it lies in a pass, and in passes of each size.

A product of matrices may add up in another order where there are more rows, or in another part of the rows. Which
kernels are used follows from shapes, and those are fixed: so a few pictures of noise tell.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from holdwater.train.finetune.vision.budgets import Rule, smallest_budget
from holdwater.train.finetune.vision.static_tower import Inputs

Run = Callable[[Sequence[Inputs], int], list[tuple[Tensor, ...]]]
"""Makes the features of pictures in one pass of a budget."""


class Pictures(Protocol):
    """What a probe needs to know of a tower."""

    most: int
    """Pictures in a pass, at most."""

    def size(self, inputs: Inputs) -> int | None:
        """How many places a picture takes; None if it needs a pass of its own."""
        ...

    def example(self, places: int, seed: int) -> Inputs:
        """A picture of noise of so many places, or somewhat fewer."""
        ...


def find_rule(run: Run, pictures: Pictures, budgets: Sequence[int]) -> Rule:
    """Compare the bits of pictures of noise: alone, before, between and behind others, in each budget.

    Args:
        run: Makes features.
        pictures: Makes the pictures.
        budgets: Ascending.

    Returns:
        The freest rule under which bits have not differed.
    """
    rule = Rule.ANY
    for half in sorted({max(1, budget // 2) for budget in budgets}):
        subject = pictures.example(half, 0)
        size = pictures.size(subject) or 0
        home = run([subject], smallest_budget(tuple(budgets), size))[0]
        for budget in budgets:
            if budget < size:
                continue
            alone = run([subject], budget)[0]
            if not _same(alone, home):
                rule = Rule.HOME
            for at, together in _companies(pictures, subject, budget - size):
                if not _same(run(together, budget)[at], alone):
                    return Rule.ALONE
    return rule


def _companies(pictures: Pictures, subject: Inputs, rest: int) -> Iterator[tuple[int, list[Inputs]]]:
    """Fills with a picture at the end, at the beginning and between others, and its number there."""
    whole = _others(pictures, rest, pictures.most - 1, seed=1)
    if not whole:
        return
    yield len(whole), [*whole, subject]
    yield 0, [subject, *whole]
    before = _others(pictures, rest // 2, pictures.most // 2, seed=2)
    behind = _others(pictures, rest // 2, pictures.most // 2 - 1, seed=3)
    if before and behind:
        yield len(before), [*before, subject, *behind]


def _others(pictures: Pictures, places: int, most: int, *, seed: int) -> list[Inputs]:
    """Pictures that fill so many places, as far as they can."""
    found: list[Inputs] = []
    while places > 0 and len(found) < most:
        one = pictures.example(places, seed + 10 * len(found))
        size = pictures.size(one) or 0
        if not 0 < size <= places:
            break
        found.append(one)
        places -= size
    return found


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether all bits are equal."""
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
