"""Judge a run that has ended: what the program does after its last step is not growth of its steps.

A profiler that writes its trace, or results that are put together, may take or free more than the loop did.
"""

import numpy as np

from holdwater.budget import Budgets
from holdwater.detectors.evidence import Evidence
from holdwater.detectors.judge import JudgeConfig, Judgement, judge
from holdwater.timeline.buckets import Buckets, Floats, without_last

MOST = 0.1
"""Resident memory that moves at the end by more than this part of all that it moved by before has done something
else than the loop."""
LEAST = 8e6
"""Bytes that count."""


def judge_closed(buckets: Buckets, budgets: Budgets, *, config: JudgeConfig, evidence: Evidence) -> Judgement:
    """Judge for the last time: what was a leak up to the last reading but one is a leak, if the last one jumps.

    Args:
        buckets: The history, with the reading at the end.
        budgets: Of the pools.
        config: When growth counts.
        evidence: What is known beyond the curves.
    """
    whole = judge(buckets, budgets, config=config, evidence=evidence, final=True)
    if whole.verdict.kind == "leak" or not moved_at_the_end(buckets):
        return whole
    loop = judge(without_last(buckets), budgets, config=config, evidence=evidence, final=True)
    return loop if loop.verdict.kind == "leak" else whole


def moved_at_the_end(buckets: Buckets) -> bool:
    """Whether resident memory has jumped or fallen at the last reading.

    Args:
        buckets: The history.
    """
    return any(_moves(values) for values in (buckets.lows("resident"), buckets.highs("resident")))


def _moves(resident: Floats) -> bool:
    """Whether the last of some readings is far from the one before."""
    resident = resident[~np.isnan(resident)]
    if len(resident) < 3:
        return False
    before = resident[:-1]
    least = max(LEAST, MOST * float(before.max() - before.min()))
    return abs(float(resident[-1] - before[-1])) > least
