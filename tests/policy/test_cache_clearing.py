"""Tests of clearing the device's cache: when it is large, and only as long as that pays."""

from holdwater.budget import Budget, Budgets
from holdwater.policy.cache_clearing import FIRST_PATIENCE, CacheClearing
from holdwater.probes.sample import DeviceMemory, Sample
from holdwater.units import Bytes, Step

GB = 1_000_000_000
MAC = Budgets(Budget(Bytes(70 * GB), "given", ""), unified=True)


def sample(step: int, *, cache: int) -> Sample:
    """One step of a run that holds 20 GB in arrays.

    Args:
        step: Its number.
        cache: Gigabytes in the cache.
    """
    return Sample(Step(step), float(step), Bytes(GB), DeviceMemory(Bytes(20 * GB), Bytes((20 + cache) * GB)))


class TestCacheClearing:
    """Over a share of the budget."""

    def test_a_large_cache_is_cleared(self) -> None:
        """The reason says how large it is, and how large it may be."""
        assert CacheClearing().reason(sample(5, cache=12), MAC) == (
            "the device's cache is 12.0 GB, over 15% of the budget"
        )

    def test_a_small_one_is_kept(self) -> None:
        """A cache saves allocations."""
        assert CacheClearing().reason(sample(5, cache=10), MAC) == ""

    def test_a_cache_that_the_steps_need_is_left_alone(self) -> None:
        """It was as large again after ten steps: clearing it costs time and frees nothing."""
        cache = CacheClearing()
        cleared = [step for step in range(10, FIRST_PATIENCE, 10) if cache.reason(sample(step, cache=12), MAC)]

        assert cleared == [10]

    def test_it_is_tried_again_after_a_while(self) -> None:
        """Another phase of the run may need less."""
        cache = CacheClearing()
        cleared = [step for step in range(10, 1000, 10) if cache.reason(sample(step, cache=12), MAC)]

        assert cleared[:2] == [10, 280]
        assert len(cleared) <= 3

    def test_a_cache_that_fills_slowly_is_cleared_each_time(self) -> None:
        """Sizes that never return fill it: clearing pays."""
        cache = CacheClearing()

        assert [step for step in (100, 200, 300) if cache.reason(sample(step, cache=12), MAC)] == [100, 200, 300]

    def test_a_device_with_memory_of_its_own_keeps_its_cache(self) -> None:
        """There nothing else could use it."""
        gpu = Budgets(Budget(Bytes(70 * GB), "given", ""), Budget(Bytes(80 * GB), "given", ""))

        assert CacheClearing().reason(sample(5, cache=40), gpu) == ""
