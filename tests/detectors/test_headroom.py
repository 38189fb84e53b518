"""How close memory is to the budgets, and what the machine has left."""

import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig, judge_headroom
from holdwater.errors import ConfigError
from holdwater.testing import make_sample
from holdwater.units import Bytes

BUDGETS = Budgets(Budget(Bytes(10**9), "given", ""))
BOTH = Budgets(BUDGETS.host, Budget(Bytes(5 * 10**9), "given", ""))
CONFIG = HeadroomConfig(waiting_below=Bytes(3 * 10**9), stopping_below=Bytes(2 * 10**9), threshold=0.8)


class TestHeadroom:
    """How close a sample is to its limits."""

    @pytest.mark.parametrize(
        ("resident", "available", "level"),
        [
            (5e8, None, "calm"),
            (5e8, 4 * 10**9, "calm"),
            (8.1e8, None, "threshold"),
            (7.9e8, None, "calm"),
            (5e8, int(2.9e9), "waiting"),
            (5e8, int(1.9e9), "stopping"),
            (1.1e9, None, "over budget"),
            (1.1e9, int(1.9e9), "stopping"),
        ],
    )
    def test_takes_the_gravest_level(self, resident: float, available: int | None, level: str) -> None:
        """Each level with its *does not act* twin."""
        assert judge_headroom(make_sample(1, resident, available=available), BUDGETS, CONFIG).level == level

    @pytest.mark.parametrize(
        ("available", "words"),
        [
            (2_900_000_000, "2.90 GB available, under the waiting level of 3.00 GB"),
            (1_900_000_000, "1.90 GB available, under the stopping level of 2.00 GB"),
        ],
        ids=["waiting", "stopping"],
    )
    def test_says_how_little_the_machine_has_left(self, available: int, words: str) -> None:
        """Both numbers, for people."""
        assert judge_headroom(make_sample(1, 5e8, available=available), BUDGETS, CONFIG).reason == words

    def test_reports_a_device_above_its_own_threshold(self) -> None:
        """Reserved memory counts against the device's budget, and the finding is the device's."""
        headroom = judge_headroom(make_sample(1, 1e8, device_reserved=4_100_000_000), BOTH, CONFIG)

        assert (headroom.level, headroom.pool, headroom.component) == ("threshold", "device", "device.reserved")
        assert "device memory reserved is 4.10 GB, over 80% of the budget of 5.00 GB" in headroom.reason

    def test_ignores_what_two_pools_come_to_together(self) -> None:
        """790 MB of 1 GB beside 3.9 GB of 5 GB: each is under its threshold."""
        assert judge_headroom(make_sample(1, 7.9e8, device_reserved=3_900_000_000), BOTH, CONFIG).level == "calm"

    def test_the_gravest_pool_leads(self) -> None:
        """The host over its budget, the device above its threshold only; then the other way round."""
        host = judge_headroom(make_sample(1, 1.1e9, device_reserved=4_100_000_000), BOTH, CONFIG)
        device = judge_headroom(make_sample(1, 8.1e8, device_reserved=5_100_000_000), BOTH, CONFIG)

        assert [(one.pool, one.level) for one in host.pools] == [("host", "over budget"), ("device", "threshold")]
        assert [(one.pool, one.level) for one in device.pools] == [
            ("device", "over budget"),
            ("host", "threshold"),
        ]

    def test_in_one_pool_host_and_device_count_together(self) -> None:
        """On Apple silicon resident memory does not see what the device's allocator holds."""
        one = Budgets(BUDGETS.host, unified=True)

        headroom = judge_headroom(make_sample(1, 5e8, device_reserved=600_000_000), one, CONFIG)

        assert (headroom.level, headroom.pool, headroom.component) == ("over budget", "unified", "device.reserved")

    def test_a_device_without_a_budget_is_held_against_nothing(self) -> None:
        """Its size is not known yet."""
        assert judge_headroom(make_sample(1, 1e8, device_reserved=10**12), BUDGETS, CONFIG).level == "calm"

    def test_refuses_to_stop_before_it_waits(self) -> None:
        """The message names both values."""
        with pytest.raises(ConfigError, match=r"stopping_below is 3\.00 GB, but waiting_below is only 2\.00 GB"):
            HeadroomConfig(waiting_below=Bytes(2 * 10**9), stopping_below=Bytes(3 * 10**9))
