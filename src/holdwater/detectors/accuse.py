"""Checks before a leak is reported: what drives the growth, would a collection free it, what is it made of?

Growth that a collection frees is garbage: it is cyclic while the collector runs, and a leak if it was switched
off. Growth of what the dataset itself holds, or of containers with a maximum length, ends by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from holdwater.detectors.evidence import Evidence, Experiment, Holdings
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import Component
from holdwater.timeline.buckets import Buckets

CURED = 0.5
"""A collection that frees this share of a growth explains it."""
ENOUGH = 4 << 20
"""Bytes that must have grown before a collection that frees little of them shows that they are no garbage."""
STALE, ALWAYS_FRESH = 2.0, 64
"""An experiment is repeated when the growth is this many times as old, and a little more."""
LEAST_SHARE = 0.4
"""A kind of object is named only if it makes up this share of a growth."""
VISITS, WORKER_VISITS = "samples_seen", "worker_visits"
"""The series that count first visits of rows."""

JUST_NOW = 1.3
"""A first epoch is over for good when the run is this many times as long."""


@dataclass(frozen=True, slots=True)
class Composition:
    """What a growth is made of, as shares of it that add up to one at most."""

    tensors: float
    python: float
    native: float

    @property
    def component(self) -> Component:
        """The largest part; native if neither tensors nor Python objects show."""
        if self.tensors >= max(self.python, LEAST_SHARE):
            return "host.tensors"
        return "host.python" if self.python >= max(self.native, LEAST_SHARE) else "host.native"


def composition(evidence: Evidence) -> Composition | None:
    """Compare the counts before and after a growth; None if there are not two."""
    pair = _pair(evidence)
    if pair is None:
        return None
    first, last, growth = pair
    freed = sum(test.collected_tensors for test in evidence.experiments if first.step <= test.step < last.step)
    tensors = min(max(last.tensors + freed - first.tensors, 0) / growth, 1.0)
    between = [held for held in evidence.holdings if first.step < held.step <= last.step]
    small = sum(held.gained_python for held in between)
    others = last.bulk + _freed_of_python(evidence, first.step, last.step, growth) - first.bulk
    python = min(max(others + small, 0) / growth, 1.0 - tensors)
    return Composition(tensors, python, max(1.0 - tensors - python, 0.0))


def _freed_of_python(evidence: Evidence, since: int, until: int, growth: float) -> float:
    """Bytes of garbage other than tensors: what Python's collector frees belonged to Python objects.

    Args:
        evidence: The run's, with the experiments.
        since: The step from which on they count.
        until: The step before which they count.
        growth: Bytes; less than half of it may be garbage of the start-up.
    """
    tests = [test for test in evidence.experiments if since <= test.step < until]
    freed = sum(max(test.collected - test.collected_tensors, 0.0) for test in tests)
    return freed if freed >= CURED * growth else 0.0


def is_garbage(evidence: Evidence, growth: Growth, step: int) -> bool:
    """Whether a collection freed most of what had grown; an old one says nothing of growth since.

    Args:
        evidence: The run's, with the experiments.
        growth: The suspected growth.
        step: The newest.
    """
    return is_tested(evidence, growth, step) and _was_garbage(evidence, growth)


def is_tested(evidence: Evidence, growth: Growth, step: int) -> bool:
    """Whether an experiment decides: it freed the growth, or the growth is not yet twice as old since.

    What a collection did not free when the growth was young is not garbage later.

    Args:
        evidence: The run's, with the experiments.
        growth: The suspected growth.
        step: The newest.
    """
    since = 0 if growth.onset is None else int(growth.onset)
    if not evidence.experiments or evidence.experiments[-1].step < since:
        return False
    if not _was_garbage(evidence, growth):
        return True
    return step - since <= STALE * (evidence.experiments[-1].step - since) + ALWAYS_FRESH


def _was_garbage(evidence: Evidence, growth: Growth) -> bool:
    """Whether collections since a growth began freed most of what had grown by the last of them."""
    since = 0 if growth.onset is None else int(growth.onset)
    tests = [test for test in evidence.experiments if test.step >= since]
    during = [test for test in tests if not test.at_end]
    if during and _grown_by(during[-1].step, growth) >= ENOUGH and not _freed_most(during, growth):
        tests = during  # what it did not free while the script ran was held then, and let go of as it ended
    return _freed_most(tests, growth)


def _freed_most(tests: list[Experiment], growth: Growth) -> bool:
    """Whether these collections freed most of what had grown by the last of them."""
    return bool(tests) and sum(test.collected for test in tests) >= CURED * _grown_by(tests[-1].step, growth)


def is_held_by_datasets(evidence: Evidence) -> bool:
    """Whether most of the growth is in what the loaders' datasets hold that were there before."""
    pair = _pair(evidence)
    if pair is None:
        return False
    first, last, growth = pair
    if first.later is not None and last.later is not None:
        growth = last.later - first.later
    new = sum(held.new_datasets for held in evidence.holdings if first.step < held.step <= last.step)
    return last.datasets - new - first.datasets >= CURED * growth > 0


def is_of_graphs(evidence: Evidence, growth: Growth) -> bool:
    """Whether most of the growth of an allocator's free memory is in pools of live CUDA graphs.

    Args:
        evidence: The run's, with the counts.
        growth: Of the free memory.
    """
    return _makes_up(growth, [(held.step, held.graph_pools) for held in evidence.holdings])


def is_of_buffer_cache(evidence: Evidence, growth: Growth) -> bool:
    """Whether most of the growth of an allocator's free memory is in MLX's cache, which a program can bound.

    Args:
        evidence: The run's, with the counts.
        growth: Of the free memory.
    """
    return _makes_up(growth, [(held.step, held.buffer_cache) for held in evidence.holdings])


def _makes_up(growth: Growth, sizes: Iterable[tuple[int, float | None]]) -> bool:
    """Whether something that was measured at some steps has grown by most of a growth."""
    known = [(step, size) for step, size in sizes if size is not None]
    if len(known) < 2 or growth.rate is None:
        return False
    (first, before), (last, now) = known[0], known[-1]
    return now - before >= CURED * growth.rate.bytes_per_step * (last - first) > 0


def first_visits(buckets: Buckets, evidence: Evidence) -> tuple[float, float] | None:
    """As `visits`; None long after each row was given out."""
    counted = visits(buckets, evidence)
    if counted is None:
        return None
    seen = np.nan_to_num(buckets.highs(VISITS))
    newest = counted[0]
    last_new = float(buckets.last_step[int(np.argmax(seen))])
    first, now = float(buckets.first_step[0]), float(buckets.last_step[-1])
    if newest >= evidence.samples_total and now - first > JUST_NOW * (last_new - first):
        return None  # each row came long ago: something else grows
    return counted


def visits(buckets: Buckets, evidence: Evidence) -> tuple[float, float] | None:
    """How many rows were given out so far, and how many there are; None without loaders."""
    return _counted(buckets, VISITS, evidence.samples_total)


def worker_visits(buckets: Buckets, evidence: Evidence) -> tuple[float, float] | None:
    """As `visits`, of loader workers: a row counts once for each of them."""
    return _counted(buckets, WORKER_VISITS, evidence.worker_rows)


def _counted(buckets: Buckets, series: str, total: int) -> tuple[float, float] | None:
    """The newest count of visits, and the largest possible; None if either is unknown."""
    if not total or not buckets.seen(series):
        return None
    return float(np.nan_to_num(buckets.highs(series)).max()), float(total)


def is_held_by_workers_datasets(evidence: Evidence, growth: Growth) -> bool:
    """Whether the datasets of loader workers were seen to gain most of what child processes grow by.

    Args:
        evidence: The run's, with the workers' counts.
        growth: Of the child processes; a step needs one batch, of one worker.
    """
    gained = max((gain.in_dataset / max(gain.batches, 1) for gain in evidence.worker_gains), default=0.0)
    return growth.rate is not None and gained >= CURED * growth.rate.bytes_per_step > 0


def _pair(evidence: Evidence) -> tuple[Holdings, Holdings, float] | None:
    """The newest count, the latest before it with a third of the growth in between, and the bytes grown between.

    What an experiment freed is added back: it had grown. An experiment is made right after a count.
    """
    if len(evidence.holdings) < 2:
        return None
    *earlier, last = evidence.holdings

    def grown(held: Holdings) -> float:
        """Bytes from a count to the newest."""
        freed = sum(test.collected for test in evidence.experiments if held.step <= test.step < last.step)
        return last.in_use + freed - held.in_use

    most = max(map(grown, earlier))
    for held in reversed(earlier):
        if grown(held) >= most / 3 > 0 and last.step > held.step:
            return held, last, grown(held)
    return None


def _grown_by(step: int, growth: Growth) -> float:
    """The line's rise from its onset to a step."""
    if growth.rate is None or growth.onset is None:
        return float("inf")
    return max(step - int(growth.onset), 1) * growth.rate.bytes_per_step


def has_more_children(buckets: Buckets) -> bool:
    """Whether the number of child processes has grown: then this process keeps them.

    Args:
        buckets: The history.
    """
    counts = buckets.lows("child_count")
    seen = counts[~np.isnan(counts)]
    return len(seen) > 0 and bool(seen[-1] > seen[len(seen) // 3])
