"""What a program does after its last step is not growth of its steps."""

from typing import Any

import numpy as np
import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.closing import judge_closed, moved_at_the_end
from holdwater.detectors.evidence import NO_EVIDENCE
from holdwater.detectors.judge import JudgeConfig
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.buckets import Buckets
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

BUDGETS = Budgets(Budget(Bytes(10**10), "given", ""))
MB = 1_000_000
READ = frozenset((
    *range(1, 100), *range(100, 420, 12), *range(450, 1300, 60), 1335, 1569, 1774, 1937, 2041, 2420, 2864, 3363,
))  # fmt: skip
"""Steps at which malloc was read in such a run: seldom at its end."""


def run_of(rate: int, *, last: int, steps: int = 4000, freed: int = 0) -> Buckets:
    """Memory that grows by so many bytes a step, and moves by so many after the last one; malloc is read seldom.

    Malloc keeps what is freed then.
    """
    noise = np.random.default_rng(0).integers(0, 50_000, steps + 1)
    timeline = Timeline()
    for step in [*range(1, steps - 1), steps]:  # the last steps come too soon after the reading before them
        grown = rate * step + int(noise[step]) + (last if step == steps else 0)
        heap: dict[str, Any] = {}
        if step in READ or step == steps:
            kept = freed if step == steps else 0
            heap = {"heap_in_use": Bytes(100 * MB + grown - kept), "heap_kept": Bytes(MB + kept)}
        look = Look(anonymous=Bytes(200 * MB + grown), file=Bytes(100 * MB), **heap)
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300 * MB + grown), None, look))
    return timeline.buckets()


@pytest.mark.parametrize("last", [0, 600 * MB, -40 * MB], ids=["as it was", "a jump", "freed"])
def test_reports_a_leak_whatever_follows_it(last: int) -> None:
    """A profiler that writes its trace takes more in its last second than in the whole run."""
    found = judge_closed(run_of(60_000, last=last), BUDGETS, config=JudgeConfig(), evidence=NO_EVIDENCE)

    assert found.verdict.kind == "leak"


@pytest.mark.parametrize(("rate", "kind"), [(60_000, "leak"), (0, "flat")])
def test_what_malloc_keeps_at_the_end_unmakes_no_leak(rate: int, kind: str) -> None:
    """An executor that is shut down lets its queue go: the heap in use falls, and resident memory does not."""
    buckets = run_of(rate, last=0, freed=210 * MB)

    assert judge_closed(buckets, BUDGETS, config=JudgeConfig(), evidence=NO_EVIDENCE).verdict.kind == kind


@pytest.mark.parametrize("last", [0, 600 * MB, -40 * MB], ids=["as it was", "a jump", "freed"])
def test_ignores_what_only_moves_at_the_end(last: int) -> None:
    """A flat loop, whose results are put together afterwards."""
    found = judge_closed(run_of(0, last=last), BUDGETS, config=JudgeConfig(), evidence=NO_EVIDENCE)

    assert found.verdict.kind != "leak"


NOTEBOOK = (1, *range(19, 38), 133, 257, 388, 401, 476, 490, *range(500, 527), 800)
"""Steps at which Python's blocks were read in a notebook whose last cells raised an error and showed a report."""


def notebook_of(rate: int, *, last: int) -> Buckets:
    """A notebook whose blocks grow by so many a step and by so many after the last one, with a cell at step 401."""
    timeline = Timeline()
    for step in range(1, 801):
        blocks = 1_246_000 + rate * step + (450 if step > 400 else 0) + (last if step == 800 else 0)
        read: dict[str, Any] = {"python_blocks": blocks} if step in NOTEBOOK else {}
        size = Bytes(
            346 * MB
            + (11 * MB if step > 400 else 0)
            + 64 * rate * step
            + 150 * (blocks - 1_246_000) * (step == 800)
        )
        look = Look(anonymous=Bytes(size - 100 * MB), file=Bytes(100 * MB), **read)
        timeline.append(Sample(Step(step), 0.01 * step, size, None, look))
    return timeline.buckets()


@pytest.mark.parametrize("last", [23_000, 60_000, 600_000])
def test_ignores_a_jump_after_a_gap(last: int) -> None:
    """IPython reads sources to show an error: blocks that no step took, and the only reading for many steps."""
    found = judge_closed(notebook_of(0, last=last), BUDGETS, config=JudgeConfig(), evidence=NO_EVIDENCE)

    assert found.verdict.kind != "leak"


@pytest.mark.parametrize("last", [0, 60_000])
def test_reports_a_leak_before_a_gap(last: int) -> None:
    """The same readings, and blocks that every step keeps, whether the last reading jumps or not."""
    found = judge_closed(notebook_of(400, last=last), BUDGETS, config=JudgeConfig(), evidence=NO_EVIDENCE)

    assert found.verdict.kind == "leak"


@pytest.mark.parametrize(("last", "moved"), [(1 * MB, False), (20 * MB, True), (-20 * MB, True)])
def test_a_jump_is_larger_than_what_the_loop_did(last: int, moved: bool) -> None:
    """By a tenth of it, and by several megabytes."""
    assert moved_at_the_end(run_of(60_000, last=last, steps=1000)) == moved
