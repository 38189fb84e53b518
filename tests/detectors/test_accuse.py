"""What a growth is made of, and whether a collection would cure it."""

from dataclasses import replace
from typing import Any

import pytest

from holdwater.detectors.accuse import composition, is_garbage, is_held_by_datasets, is_of_buffer_cache
from holdwater.detectors.evidence import Evidence, Experiment, Holdings
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import Rate
from holdwater.units import Step

LEAK = Growth("leak", Rate(1000.0, 900.0, 1100.0, 0.95), Step(100), 5e6, 1e6)
"""1 kB a step since step 100."""


def held(step: int, in_use: float, **kinds: int) -> Holdings:
    """A count in which everything else is 0."""
    fields: dict[str, Any] = {"tensors": 0, "bulk": 0, "gained_python": 0, "datasets": 0, "room": None} | kinds
    return Holdings(step=step, in_use=in_use, **fields)


def experiment(step: int, collected: float) -> Experiment:
    """A collection that freed so much."""
    return Experiment(step=step, collected=collected, collected_tensors=0, trimmed=0, collector_on=True)


class TestDatasetsInTurns:
    """A growth that the loaders' datasets hold."""

    def test_what_grew_while_objects_were_counted_is_left_out(self) -> None:
        """Datasets are weighed at the end of a count: 17 MB more than when it began, 8 MB the next time."""
        first = replace(held(18, 42e6, datasets=59_000_000), later=59e6)
        last = replace(held(38, 78e6, datasets=76_000_000), later=78e6)

        assert is_held_by_datasets(Evidence((first, last)))
        assert not is_held_by_datasets(Evidence((replace(first, later=None), replace(last, later=None))))

    @pytest.mark.parametrize(("new", "held_by"), [(0, True), (40_000_000, False)])
    def test_datasets_that_are_made_anew_are_no_cache_that_fills(self, new: int, held_by: bool) -> None:
        """A program keeps the dataset of each round: their rows are first visits too, and no bound is known."""
        counts = [
            replace(held(step, 1e8 + 1e5 * step, datasets=100_000 * step), new_datasets=new * (step > 18) // 5)
            for step in (18, 118, 218, 318, 418, 518)
        ]

        assert is_held_by_datasets(Evidence(tuple(counts))) == held_by


class TestGarbage:
    """A collection explains a growth only if it freed most of it."""

    def test_reports_a_growth_that_a_collection_frees(self) -> None:
        """900 kB of the 1 MB that had grown by then."""
        assert is_garbage(Evidence(experiments=(experiment(1100, 9e5),)), LEAK, 1200)

    def test_ignores_a_little_garbage_beside_a_growth(self) -> None:
        """100 kB, such as what was left by the start-up."""
        assert not is_garbage(Evidence(experiments=(experiment(1100, 1e5),)), LEAK, 1200)

    def test_ignores_what_became_garbage_as_the_script_ended(self) -> None:
        """Its main function held a pool with all its results: a collection while it ran freed nothing of 10 MB."""
        tests = (experiment(10_100, 0.0), replace(experiment(20_100, 2e7), at_end=True))

        assert not is_garbage(Evidence(experiments=tests), LEAK, 20_100)

    @pytest.mark.parametrize(("step", "freed"), [(600, 0.0), (10_100, 8e6)])
    def test_reports_garbage_at_the_end_of_a_growth_that_was_garbage_before(self, step: int, freed: float) -> None:
        """Or that was too small to be tested then: half a megabyte."""
        tests = (experiment(step, freed), replace(experiment(20_100, 2e7), at_end=True))

        assert is_garbage(Evidence(experiments=tests), LEAK, 20_100)

    def test_ignores_garbage_from_before_the_growth(self) -> None:
        """However much it was."""
        assert not is_garbage(Evidence(experiments=(experiment(50, 9e8),)), LEAK, 120)

    def test_ignores_what_was_freed_of_a_growth_much_larger_than_itself(self) -> None:
        """A start-up's garbage is no measure for a leak that has run for long."""
        small = Growth("leak", LEAK.rate, Step(100), 5e6, 2e5)

        assert not is_garbage(Evidence(experiments=(experiment(5100, 3e5),)), small, 5200)

    def test_ignores_what_was_freed_long_before(self) -> None:
        """A collection that freed all that had grown by step 1,100 says nothing of the growth up to 4,000."""
        assert not is_garbage(Evidence(experiments=(experiment(1100, 9e5),)), LEAK, 4000)


class TestBufferCache:
    """MLX's cache of freed buffers."""

    def test_reports_a_cache_that_makes_up_the_growth(self) -> None:
        """900 bytes a step, of 1 kB."""
        first, last = (replace(held(step, 5e6), buffer_cache=900.0 * step) for step in (100, 1100))

        assert is_of_buffer_cache(Evidence((first, last)), LEAK)

    def test_ignores_a_cache_that_has_settled(self) -> None:
        """It was as large before."""
        first, last = (replace(held(step, 5e6), buffer_cache=32e6) for step in (100, 1100))

        assert not is_of_buffer_cache(Evidence((first, last)), LEAK)

    def test_ignores_other_frameworks(self) -> None:
        """Nothing is known of a cache."""
        assert not is_of_buffer_cache(Evidence((held(100, 5e6), held(1100, 6e6))), LEAK)


class TestComposition:
    """The shares of a growth."""

    @pytest.mark.parametrize(
        ("kinds", "component"),
        [
            ({"tensors": 8_000_000}, "host.tensors"),
            ({"bulk": 8_000_000}, "host.python"),
            ({"gained_python": 8_000_000}, "host.python"),
            ({}, "host.native"),
        ],
    )
    def test_names_what_makes_up_most(self, kinds: dict[str, int], component: str) -> None:
        """And native, where neither tensors nor Python objects show."""
        found = composition(Evidence((held(16, 1e8), held(64, 1.1e8, **kinds))))

        assert found is not None
        assert found.component == component

    def test_adds_back_what_experiments_freed(self) -> None:
        """20 MB of tensors that came and were collected, in between: the last count alone shows less than before."""
        tests = tuple(
            Experiment(step, collected=2e7, collected_tensors=2e7, trimmed=0, collector_on=False)
            for step in (64, 128)
        )
        counts = (held(16, 1e8), held(64, 1.2e8, tensors=20_000_000), held(128, 1.2e8, tensors=20_000_000),
                  held(140, 1.01e8, tensors=1_000_000))  # fmt: skip

        found = composition(Evidence(counts, tests))

        assert found is not None
        assert found.component == "host.tensors"

    def test_garbage_that_was_no_tensor_belonged_to_python(self) -> None:
        """20 MB of arrays in cycles that were collected between two counts: the last shows nothing of them."""
        tests = (Experiment(64, collected=2e7, collected_tensors=0, trimmed=0, collector_on=False),)
        counts = (held(16, 1e8), held(64, 1.2e8, bulk=20_000_000), held(140, 1.01e8, bulk=1_000_000))

        found = composition(Evidence(counts, tests))

        assert found is not None
        assert found.component == "host.python"

    def test_garbage_of_the_start_up_says_nothing(self) -> None:
        """400 kB were collected once, and 10 MB of native memory have grown."""
        tests = (Experiment(64, collected=4e5, collected_tensors=0, trimmed=0, collector_on=True),)

        found = composition(Evidence((held(16, 1e8), held(64, 1.05e8), held(140, 1.1e8)), tests))

        assert found is not None
        assert (found.component, found.python) == ("host.native", 0.0)

    def test_is_silent_without_two_counts(self) -> None:
        """One can be compared with nothing."""
        assert composition(Evidence((held(16, 1e8),))) is None


class TestDatasets:
    """Rows that the dataset itself holds."""

    def test_reports_a_cache_within_the_dataset(self) -> None:
        """Most of the growth."""
        assert is_held_by_datasets(Evidence((held(16, 1e8), held(64, 1.1e8, datasets=9_000_000))))

    def test_ignores_growth_elsewhere(self) -> None:
        """The dataset took a tenth of it."""
        assert not is_held_by_datasets(Evidence((held(16, 1e8), held(64, 1.1e8, datasets=1_000_000))))
