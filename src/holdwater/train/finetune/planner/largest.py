"""The inverse of a plan: the longest rows, or the largest batch, whose steps fit into a budget."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from holdwater.errors import ConfigError, NothingFits
from holdwater.train.finetune.planner.autograd import AutogradPlanned
from holdwater.train.finetune.planner.fused import Choice, Planned
from holdwater.train.finetune.planner.plan import choose_settings, model_positions, planned_of
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.units import Bytes

STRIDE = 64
"""Lengths that are tried are multiples of it, in tokens."""
MOST_ROWS = 1 << 16
"""Larger batches are not tried."""

Attempt = Callable[[int], Choice]
"""Plans for a number of tokens or rows, or raises `NothingFits`."""
Build = Callable[[TrainSettings, TuneSettings], Planned | AutogradPlanned]


def longest_rows(
    settings: TrainSettings, tuning: TuneSettings, limit: Bytes, *, build: Build = planned_of
) -> tuple[int, Choice]:
    """The longest rows, in tokens, of which one fits in some way of taking steps.

    Args:
        settings: Of the run; its length is not used.
        tuning: Which model, which adapters.
        limit: What the process may take.
        build: Builds the model on the meta device.

    Returns:
        The length, at most the model's positions, and the plan for it.

    Raises:
        NothingFits: Not even the shortest do.
        ConfigError: It is not known how many positions the model has.
    """
    most = model_positions(tuning.model)
    if most is None:
        raise ConfigError(
            f"--max-context: the configuration of {tuning.model} does not say how many positions it has"
        )

    def attempt(length: int) -> Choice:
        """Plan rows of this length."""
        planned = build(replace(settings, train_seq_length=length), tuning)
        return choose_settings(planned, rows=settings.batch_size, limit=limit)

    return _largest([*range(STRIDE, most, STRIDE), most], attempt)


def largest_batch(planned: Planned | AutogradPlanned, limit: Bytes) -> tuple[int, Choice]:
    """The most rows that can be propagated at once, in some way of taking steps.

    Args:
        planned: The model.
        limit: What the process may take.

    Returns:
        The rows, and the plan for them.

    Raises:
        NothingFits: Not even one does.
    """

    def attempt(rows: int) -> Choice:
        """Plan so many rows, not cut into parts."""
        return choose_settings(planned, rows=rows, limit=limit, whole=True)

    first = attempt(1)
    least, most = 1, 2
    while most <= MOST_ROWS and _fits(attempt, most):
        least, most = most, 2 * most
    if least == 1:
        return 1, first
    return _largest(range(least, most), attempt)


def _largest(sizes: Sequence[int], attempt: Attempt) -> tuple[int, Choice]:
    """The largest size that fits, and its plan; larger sizes need more."""
    count = bisect_left(sizes, 1, key=lambda size: 0 if _fits(attempt, size) else 1)
    size = sizes[max(count - 1, 0)]
    return size, attempt(size)


def _fits(attempt: Attempt, size: int) -> bool:
    """Whether a size fits."""
    try:
        attempt(size)
    except NothingFits:
        return False
    return True
