"""The history of a run: bounded, and without losing a peak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.testing import make_sample
from holdwater.timeline.buckets import thin
from holdwater.timeline.timeline import Timeline


def fill(values: list[int], capacity: int = 8) -> Timeline:
    """A timeline of these readings of resident memory."""
    timeline = Timeline(capacity)
    for step, value in enumerate(values, start=1):
        timeline.append(make_sample(step, value, available=10 * value if step % 3 == 0 else None))
    return timeline


class TestTimeline:
    """Takes samples in, gives buckets out."""

    def test_keeps_each_sample_while_there_is_room(self) -> None:
        """Nothing is merged before the timeline is full."""
        buckets = fill([5, 7, 6]).buckets()

        assert buckets.first_step.tolist() == [1, 2, 3]
        assert buckets.highs("resident").tolist() == [5, 7, 6]

    def test_merges_neighbours_when_it_is_full(self) -> None:
        """Eight buckets of one sample become four of two."""
        buckets = fill([1, 2, 3, 4, 5, 6, 7, 8]).buckets()

        assert buckets.first_step.tolist() == [1, 3, 5, 7]
        assert buckets.last_step.tolist() == [2, 4, 6, 8]
        assert buckets.lows("resident").tolist() == [1, 3, 5, 7]
        assert buckets.means("resident").tolist() == [1.5, 3.5, 5.5, 7.5]

    @pytest.mark.parametrize("steps", [1, 5, 7, 8, 9, 13])
    def test_a_second_sample_of_a_step_goes_into_its_bucket(self, steps: int) -> None:
        """The last sample of a run comes at the step of the one before; its peak counts, its step stays one."""
        timeline = fill([5] * steps)

        timeline.append(make_sample(steps, 900))

        buckets = timeline.buckets()
        assert (np.diff(buckets.last_step) > 0).all()
        assert int(buckets.last_step[-1]) == steps
        assert buckets.highs("resident")[-1] == timeline.peak("resident") == 900
        assert buckets.count[0].sum() == steps + 1

    def test_what_was_not_read_is_nan_and_not_zero(self) -> None:
        """Available memory was looked at only with every third sample."""
        available = fill([1, 2, 3]).buckets().highs("available")

        assert np.isnan(available[:2]).all()
        assert available[2] == 30

    def test_a_loss_that_is_no_number_is_no_reading(self) -> None:
        """A diverged run still has a curve."""
        timeline = Timeline(8)
        sample = make_sample(1, 5)
        for loss in (float("nan"), 2.0, float("nan")):
            timeline.append(type(sample)(sample.step, sample.seconds, sample.resident, loss=loss))

        assert timeline.peak("loss") == 2.0

    @settings(deadline=None)
    @given(st.lists(st.integers(min_value=0, max_value=2**45), min_size=1, max_size=300))
    def test_never_loses_a_peak_or_a_low(self, values: list[int]) -> None:
        """However much was merged: the extremes, the order of steps and the number of samples stay."""
        timeline = fill(values)

        buckets = timeline.buckets()
        assert timeline.peak("resident") == max(values)
        assert np.nanmin(buckets.lows("resident")) == min(values)
        assert len(buckets) <= 9
        assert buckets.count[0].sum() == len(values)
        assert (np.diff(buckets.first_step) > 0).all()
        assert (buckets.first_step[1:] == buckets.last_step[:-1] + 1).all()

    @settings(deadline=None)
    @given(st.lists(st.integers(min_value=0, max_value=2**45), min_size=1, max_size=100), st.integers(1, 20))
    def test_thinning_keeps_the_peak(self, values: list[int], most: int) -> None:
        """What a chart shows is never lower than what was."""
        thinned = thin(fill(values, capacity=128).buckets(), most)

        assert len(thinned) <= most
        assert np.nanmax(thinned.highs("resident")) == max(values)

    def test_refuses_a_capacity_that_cannot_be_halved(self) -> None:
        """Pairs are merged."""
        with pytest.raises(ValueError, match="even"):
            Timeline(7)
