"""Growth whose end is known is a forecast; growth that needs new regions is a leak."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.budget import Budget, Budgets
from holdwater.detectors.evidence import Evidence, Holdings, WorkerGain
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.verdict import Finding, Plateau
from holdwater.probes.mappings import Touched
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

MB = 1_000_000
BUDGET = Budgets(Budget(Bytes(10**10), "given", ""))


def judged(
    *,
    file_rate: int = 0,
    private_rate: int = 0,
    virtual_rate: int | None = None,
    unmapped: int = 0,
    evidence: Evidence | None = None,
) -> Finding:
    """The first finding of a run of 1,000 steps whose memory grows by so many bytes a step.

    Args:
        file_rate: Of mapped files.
        private_rate: Of private memory that malloc knows nothing of.
        virtual_rate: Of address space; None where it was not read.
        unmapped: Bytes of it that are given back after the last step.
        evidence: What is known beside the curves.
    """
    timeline = Timeline()
    for step in range(1, 1001):
        file, private = 50 * MB + file_rate * step, 200 * MB + private_rate * step
        given_back = unmapped if step == 1000 else 0
        look = Look(
            file=Bytes(file),
            anonymous=Bytes(private),
            heap_in_use=Bytes(100 * MB),
            heap_kept=Bytes(MB),
            virtual=None if virtual_rate is None else Bytes(10**9 + virtual_rate * step - given_back),
        )
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(file + private), None, look))
    found = judge(timeline.buckets(), BUDGET, config=JudgeConfig(), evidence=evidence or Evidence(), final=True)
    return found.verdict.findings[0]


class TestMappedFiles:
    """Their pages cannot exceed the mappings."""

    def test_reports_files_that_are_mapped_anew(self) -> None:
        """As many bytes of new address space as of resident pages."""
        finding = judged(file_rate=100_000, virtual_rate=100_000)

        assert (finding.verdict, finding.component) == ("leak", "host.file")

    def test_a_reading_that_shows_little_of_the_growth_says_nothing(self) -> None:
        """It is too old: what was mapped since is not in it; the address space says that files are mapped anew."""
        touched = Touched(since_step=1, inside=2 * MB, fresh=0, room=300 * MB)

        finding = judged(file_rate=100_000, virtual_rate=100_000, evidence=Evidence(files=(touched,)))

        assert (finding.verdict, finding.component) == ("leak", "host.file")

    def test_reads_of_a_mapped_file_are_bounded(self) -> None:
        """A corpus that is read once: its regions say how much is left."""
        touched = Touched(since_step=1, inside=90 * MB, fresh=MB, room=300 * MB)

        finding = judged(file_rate=100_000, virtual_rate=0, evidence=Evidence(files=(touched,)))

        assert (finding.verdict, finding.component) == ("bounded", "host.file")
        assert isinstance(finding.forecast, Plateau)
        assert finding.forecast.settles_at_bytes == 650 * MB
        assert round(finding.forecast.steps) == 3000

    def test_new_regions_are_no_bound(self) -> None:
        """The regions say that the pages lie in new ones."""
        touched = Touched(since_step=1, inside=5 * MB, fresh=90 * MB, room=300 * MB)

        assert judged(file_rate=100_000, evidence=Evidence(files=(touched,))).verdict == "leak"

    def test_without_regions_the_address_space_tells(self) -> None:
        """Where smaps cannot be read: nothing was mapped, so nothing new can be read."""
        finding = judged(file_rate=100_000, virtual_rate=0)

        assert (finding.verdict, finding.forecast) == ("bounded", None)

    def test_reports_files_that_a_script_unmaps_as_it_ends(self) -> None:
        """The address space is as small as at the start then; it was needed all the same."""
        finding = judged(file_rate=100_000, virtual_rate=100_000, unmapped=100 * MB)

        assert (finding.verdict, finding.component) == ("leak", "host.file")

    def test_reports_where_neither_is_known(self) -> None:
        """A guard that reads no address space."""
        assert judged(file_rate=100_000).verdict == "leak"


class TestMemoryAllocatedWhole:
    """An array that is touched gradually ends with the array."""

    def test_a_replay_buffer_is_bounded(self) -> None:
        """It lies in regions that were there before."""
        touched = Touched(since_step=1, inside=95 * MB, fresh=0, room=50 * MB)

        finding = judged(private_rate=100_000, virtual_rate=0, evidence=Evidence(private=(touched,)))

        assert finding.verdict == "bounded"
        assert "touched gradually" in finding.message

    def test_reports_native_memory_that_is_mapped(self) -> None:
        """A library that maps memory of its own each step."""
        touched = Touched(since_step=1, inside=MB, fresh=95 * MB, room=MB)

        finding = judged(private_rate=100_000, virtual_rate=100_000, evidence=Evidence(private=(touched,)))

        assert (finding.verdict, finding.component) == ("leak", "host.native")

    def test_takes_the_reading_nearest_to_the_onset(self) -> None:
        """What was mapped after the first reading and before the growth is no new region of it."""
        at_first = Touched(since_step=0, inside=0, fresh=200 * MB, room=0)
        at_onset = Touched(since_step=1, inside=95 * MB, fresh=0, room=50 * MB)

        finding = judged(private_rate=100_000, evidence=Evidence(private=(at_first, at_onset)))

        assert finding.verdict == "bounded"


class TestGeneration:
    """A generation of tokens grows to its last one."""

    @staticmethod
    def of(first: int, last: int) -> Evidence:
        """A count at step 500, in a generation of these steps."""
        return Evidence((Holdings(500, 1e8, 0, 0, 0, 0, None, generation=(first, last)),))

    def test_growth_within_one_generation_is_bounded(self) -> None:
        """It began with the growth, and may last 200 tokens more."""
        finding = judged(private_rate=100_000, virtual_rate=100_000, evidence=self.of(0, 1200))

        assert finding.verdict == "bounded"
        assert isinstance(finding.forecast, Plateau)
        assert round(finding.forecast.steps) == 200

    @pytest.mark.parametrize("steps", [(400, 1200), (0, 600)])
    def test_reports_growth_over_several_generations(self, steps: tuple[int, int]) -> None:
        """It began long before this one, or went on after it."""
        finding = judged(private_rate=100_000, virtual_rate=100_000, evidence=self.of(*steps))

        assert finding.verdict == "leak"


def first_epoch(*, later_rise: int = 0, datasets: int = 80 * MB) -> Finding:
    """The first finding of three epochs of 100 steps, of which the first adds 1 MB a step.

    Args:
        later_rise: What a step adds after the first epoch.
        datasets: What the dataset gained between two counts, of 80 MB in all.
    """
    timeline = Timeline()
    for step in range(1, 301):
        grown = MB * min(step, 100) + later_rise * max(step - 100, 0)
        look = Look(heap_in_use=Bytes(100 * MB + grown), heap_kept=Bytes(MB), samples_seen=8 * min(step, 100))
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(200 * MB + grown), None, look))
    counts = [
        Holdings(step, (100 + step) * 1e6, tensors=0, bulk=0, gained_python=0, datasets=held, room=None)
        for step, held in ((20, 0), (100, datasets))
    ]
    evidence = Evidence(tuple(counts), samples_total=800)
    return judge(timeline.buckets(), BUDGET, config=JudgeConfig(), evidence=evidence).verdict.findings[0]


class TestFirstVisits:
    """Growth that the dataset holds is still attributed to it long after each row was read."""

    def test_a_cache_of_samples_is_named_after_two_more_epochs(self) -> None:
        """With its level and the bytes of a row, though nothing was added for 200 steps."""
        finding = first_epoch()

        assert (finding.verdict, finding.follows) == ("bounded", "sample")
        assert finding.forecast == Plateau(300.0 * MB, 0.0)
        assert finding.rate is not None
        assert finding.rate.per_event == pytest.approx(MB / 8, rel=0.01)
        assert "held by the dataset" in finding.message

    def test_growth_that_the_dataset_does_not_hold_is_not_attributed(self) -> None:
        """Something else grew in the first epoch."""
        finding = first_epoch(datasets=10 * MB)

        assert (finding.verdict, finding.forecast) == ("bounded", None)

    def test_growth_in_later_epochs_is_not_attributed(self) -> None:
        """Each row had been read."""
        finding = first_epoch(later_rise=MB // 2)

        assert finding.follows != "sample"


ROWS = 4000
ROW = 80_000
"""Bytes of a row."""


def first_visits(step: int, workers: int) -> float:
    """First visits of all workers after so many batches of eight rows, which are shuffled anew at each epoch."""
    epoch, within = divmod(8 * step, ROWS)
    left = (1 - 1 / workers) ** epoch
    return workers * ROWS * (1 - left) + within * left


def judged_workers(
    grown: Callable[[int], float], *, steps: int, workers: int = 2, in_dataset: float = 8 * ROW, noise: int = 0
) -> Finding:
    """The finding on loader workers.

    Args:
        grown: Bytes that they have grown by, after a number of steps.
        steps: Length of the run.
        workers: Their number.
        in_dataset: Bytes that the dataset of one was seen to gain with each batch.
        noise: Of their memory, in bytes.
    """
    timeline, draw = Timeline(), np.random.default_rng(steps)
    for step in range(1, steps + 1, max(steps // 300, 1)):
        own = int(200 * MB + grown(step) + draw.integers(0, noise + 1))
        look = Look(
            heap_in_use=Bytes(100 * MB),
            heap_kept=Bytes(MB),
            children_own=Bytes(own),
            child_count=workers,
            worker_visits=int(first_visits(step, workers)),
        )
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300 * MB), None, look))
    evidence = Evidence(worker_rows=workers * ROWS, worker_gains=(WorkerGain(16, int(16 * in_dataset)),))
    found = judge(timeline.buckets(), BUDGET, config=JudgeConfig(), evidence=evidence, final=True)
    return next(one for one in found.verdict.findings if one.component == "host.children")


class TestFirstVisitsOfWorkers:
    """A cache in each loader worker is full when that worker has read each row."""

    @pytest.mark.parametrize("steps", [300, 700, 1500])
    def test_a_cache_in_each_worker_is_bounded(self, steps: int) -> None:
        """In the first epoch, the second and the third: each worker comes to hold all rows."""
        finding = judged_workers(lambda step: ROW * first_visits(step, 2), steps=steps)

        assert (finding.verdict, finding.follows) == ("bounded", "sample")
        assert isinstance(finding.forecast, Plateau)
        assert finding.forecast.settles_at_bytes == pytest.approx(200 * MB + 2 * ROWS * ROW, rel=0.01)

    @settings(max_examples=15, deadline=None)
    @given(
        steps=st.integers(min_value=200, max_value=2500),
        workers=st.integers(min_value=1, max_value=16),
        noise=st.sampled_from([0, MB // 10, 4 * MB]),
    )
    def test_a_cache_is_no_leak(self, steps: int, workers: int, noise: int) -> None:
        """In any epoch, in any number of workers."""
        finding = judged_workers(
            lambda step: ROW * first_visits(step, workers), steps=steps, workers=workers, noise=noise
        )

        assert finding.verdict != "leak"

    @settings(max_examples=15, deadline=None)
    @given(
        epochs=st.floats(min_value=2.0, max_value=5.0),
        workers=st.integers(min_value=1, max_value=4),
        noise=st.sampled_from([0, MB // 10, 4 * MB]),
    )
    def test_reports_rows_that_are_kept_at_each_visit(self, epochs: float, workers: int, noise: int) -> None:
        """The same from the first epoch on: a dataset that keeps each row that it has given, again and again."""
        steps = round(epochs * ROWS / 8)

        finding = judged_workers(lambda step: ROW * 8.0 * step, steps=steps, workers=workers, noise=noise)

        assert finding.verdict == "leak"

    def test_reports_what_the_dataset_does_not_hold(self) -> None:
        """Another object in the worker, or another child, grows in the first epoch."""
        assert judged_workers(lambda step: ROW * 8.0 * step, steps=300, in_dataset=ROW).verdict == "leak"

    def test_reports_growth_where_nothing_was_counted(self) -> None:
        """No worker has reported what its dataset gained."""
        assert judged_workers(lambda step: ROW * 8.0 * step, steps=300, in_dataset=0).verdict == "leak"
