"""Let the detector look at a simulated run as it looks at a real one, and say when it said *leak*."""

from dataclasses import dataclass

import numpy as np

from holdwater.detectors.growth import DEFAULT, FIRST_LOOK, LOOK_GROWTH, GrowthConfig, GrowthKind, judge_growth
from holdwater.probes.pace import Pace
from holdwater.timeline.buckets import Floats, Integers

from .shapes import Curve

CAPACITY = 4096
LOOK_SECONDS, LOOK_PART = 15e-6, 0.25
"""What a look at a real process costs, and its part of the allowance."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of one run."""

    said_leak_at: int | None
    """The first step at which it was called a leak; None if it never was."""
    final: GrowthKind


def look_all_the_way(
    curve: Curve, *, config: GrowthConfig = DEFAULT, seconds_per_step: float | None = None
) -> Outcome:
    """Judge a run at all looks, the last of them at its end.

    Args:
        curve: The run.
        config: The detector's settings.
        seconds_per_step: What a step takes, so that it is read at the pace of a real run; None reads each step.
    """
    steps = len(curve.memory)
    at, said = FIRST_LOOK, None
    kind: GrowthKind = "unknown"
    read = np.arange(steps) if seconds_per_step is None else read_steps(steps, seconds_per_step)
    while True:
        at = min(at, steps)
        x, floors, means = thin(curve.memory, read[: int(np.searchsorted(read, at))])
        growth = judge_growth(x, floors, means, final=at == steps, config=config)
        kind = _resolve(growth.kind, curve, at)
        if kind == "leak" and said is None:
            said = at
        if at == steps:
            return Outcome(said, kind)
        at = int(at * LOOK_GROWTH) + 1


def thin(memory: Floats, read: Integers) -> tuple[Floats, Floats, Floats]:
    """Merge neighbours as a timeline does.

    Args:
        memory: One value a step. Shape (steps,).
        read: The steps that were read, increasing. Shape (readings,).

    Returns:
        The last step, the floor and the mean of each bucket. Shape (buckets,) each.
    """
    stride = 1
    while len(read) // stride >= CAPACITY:
        stride *= 2
    edges = np.arange(0, len(read), stride)
    widths = np.diff(np.append(edges, len(read)))
    values = memory[read]
    return (
        read[edges + widths - 1].astype(np.float64) + 1,
        np.minimum.reduceat(values, edges),
        np.add.reduceat(values, edges) / widths,
    )


def read_steps(steps: int, seconds_per_step: float) -> Integers:
    """The steps of a run that are read, at the pace of its cheapest reading. Shape (readings,).

    Args:
        steps: Of the run.
        seconds_per_step: What each takes.
    """
    pace, read, at = Pace(LOOK_PART, cheapest=True), [], 0
    while at < steps:
        read.append(at)
        pace.note(at * seconds_per_step, LOOK_SECONDS)
        at = max(at + 1, int(np.ceil(pace.due / seconds_per_step)))
    return np.array(read, np.int64)


def _resolve(kind: GrowthKind, curve: Curve, at: int) -> GrowthKind:
    """What a suspicion comes to where something drives the growth and shows it, as in a real run."""
    if kind == "leak" and curve.driver == "garbage":
        return "cyclic"
    if kind == "leak" and curve.driver == "samples" and at < curve.driven_until * 1.3:
        return "bounded"
    return kind
