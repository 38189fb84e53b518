"""Judge a run that has ended: what the program does after its last step is not growth of its steps.

A profiler that writes its trace, or results that are put together, may take or free more than the loop did.
"""

import numpy as np

from holdwater.budget import Budgets
from holdwater.detectors.evidence import Evidence
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.judgement import Judgement
from holdwater.detectors.verdict import Verdict
from holdwater.timeline.buckets import Buckets, Floats, without_last

MOST = 0.1
"""Resident memory that moves at the end by more than this part of all that it moved by before has done something
else than the loop."""
LEAST = 8e6
"""Bytes that count."""
FAR = 10
"""Times as far as from the onset of a leak to the reading before; no steady growth ends with such a reading."""


def judge_closed(buckets: Buckets, budgets: Budgets, *, config: JudgeConfig, evidence: Evidence) -> Judgement:
    """Judge for the last time: if the last reading jumps, what was a leak before it is one.

    And what was none before it is none, if the last reading jumps by far more than memory moved since its onset.

    Args:
        buckets: The history, with the reading at the end.
        budgets: Of the pools.
        config: When growth counts.
        evidence: What is known beyond the curves.
    """
    whole = judge(buckets, budgets, config=config, evidence=evidence, final=True)
    leaks = whole.verdict.kind == "leak"
    if not (rests_on_the_last(whole.verdict, buckets) if leaks else moved_at_the_end(buckets)):
        return whole
    loop = judge(without_last(buckets), budgets, config=config, evidence=evidence, final=True)
    return loop if (loop.verdict.kind == "leak") != leaks else whole


def moved_at_the_end(buckets: Buckets) -> bool:
    """Whether memory has jumped or fallen at the last reading: resident memory, or the heap in use.

    Malloc may keep what a script frees as it ends.

    Args:
        buckets: The history.
    """
    seen = buckets.lows("resident"), buckets.highs("resident"), buckets.lows("heap_in_use")
    return any(_moves(values) for values in seen)


def rests_on_the_last(verdict: Verdict, buckets: Buckets) -> bool:
    """Whether memory has moved far more at the last reading than from the onset of a leak to the reading before.

    Args:
        verdict: With the leaks.
        buckets: The history.
    """
    onsets = [finding.onset_step or 0 for finding in verdict.findings if finding.verdict == "leak"]
    return any(
        _outweighs(values[(buckets.last_step >= onset) & ~np.isnan(values)])
        for onset in onsets
        for values in map(buckets.lows, ("resident", "heap_in_use", "python_blocks"))
    )


def _outweighs(values: Floats) -> bool:
    """Whether the last of some readings is far more distant from the one before than any two of the others."""
    if len(values) < 3:
        return False
    before = values[:-1]
    return abs(float(values[-1] - before[-1])) > FAR * float(before.max() - before.min())


def _moves(values: Floats) -> bool:
    """Whether the last of some readings is far from the one before."""
    values = values[~np.isnan(values)]
    if len(values) < 3:
        return False
    before = values[:-1]
    least = max(LEAST, MOST * float(before.max() - before.min()))
    return abs(float(values[-1] - before[-1])) > least
