"""The budgets: given or found, each pool by itself, and never above what the machine allows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.budget import (
    Budget,
    Budgets,
    InUse,
    MachineMemory,
    PoolMemory,
    Terms,
    find_budget,
    give_budget,
    stopping_level,
    waiting_level,
)
from holdwater.errors import ConfigError
from holdwater.units import Bytes

GB = 10**9


def size(gigabytes: float | None) -> Bytes | None:
    """A size in GB, if there is one."""
    return None if gigabytes is None else Bytes(round(gigabytes * GB))


def machine(
    available: float,
    *,
    total: float = 256,
    cgroup: float | None = None,
    device: float | None = None,
    free: float | None = None,
) -> MachineMemory:
    """A machine; sizes in GB, `free` of the device."""
    return MachineMemory(
        total=Bytes(int(total * GB)),
        available=Bytes(int(available * GB)),
        cgroup_limit=size(cgroup),
        device_size=size(device),
        device_available=size(free),
    )


def terms(there: MachineMemory, *, memory: float | None = None, host: float | None = None) -> Terms:
    """What was asked for, in GB."""
    return Terms(machine=there, max_memory=size(memory), max_host_memory=size(host))


class TestFindBudget:
    """Without a budget of the user's, one is found."""

    @pytest.mark.parametrize(
        ("there", "limit"),
        [
            (machine(100).host(), 80),
            (machine(18).host(), 16),
            (machine(10).host(), 10),
            (machine(200).host(), 120),
            (machine(100, cgroup=8).host(), 8),
            (machine(100, device=24).host(), 80),
            (machine(100, device=24).device(), 19.2),
            (machine(100, cgroup=8, device=24, free=20).device(), 16),
            (machine(100, device=24, free=10).device(), 10),
            (machine(10, device=192).device(), 120),
        ],
        ids=[
            "80 %", "at least 16 GB", "all there is", "at most 120 GB", "cgroup", "host with a device", "device",
            "device with a cgroup", "a device that others use", "a large device",
        ],
    )  # fmt: skip
    def test_follows_the_rule(self, there: PoolMemory, limit: float) -> None:
        """80 % of what is available, at least 16 and at most 120 GB, within cgroup or device."""
        assert find_budget(there).limit == limit * GB

    def test_says_where_it_comes_from(self) -> None:
        """The line names the number and its source."""
        assert str(find_budget(machine(100).host())) == "budget 80.0 GB: found, 80% of the 100 GB available"

    @given(
        available=st.floats(min_value=0.1, max_value=2000),
        cgroup=st.none() | st.floats(min_value=0.1, max_value=2000),
    )
    def test_never_exceeds_a_limit(self, available: float, cgroup: float | None) -> None:
        """Whatever the machine: within available memory, cgroup and 120 GB."""
        there = machine(available, total=4000, cgroup=cgroup)

        limit = find_budget(there.host()).limit

        ceilings = [there.available, there.cgroup_limit, 120 * GB]
        assert limit <= min(ceiling for ceiling in ceilings if ceiling is not None)


class TestGiveBudget:
    """The user's budget is kept, or refused with a reason."""

    def test_is_taken_as_given(self) -> None:
        """Nothing is taken off."""
        budget = give_budget(Bytes(70 * GB), machine(100).host())

        assert (budget.limit, budget.origin) == (70 * GB, "given")

    def test_is_lowered_to_a_cgroup(self) -> None:
        """A cgroup would kill the process first; the line says so."""
        budget = give_budget(Bytes(70 * GB), machine(100, cgroup=8).host())

        assert budget.limit == 8 * GB
        assert "lowered to the cgroup limit" in budget.reason

    def test_is_refused_when_the_process_occupies_it_already(self) -> None:
        """The message names both sizes and what to write."""
        with pytest.raises(ConfigError, match=r"max_memory is 100 MB, .* occupies 300 MB .* above 375 MB"):
            give_budget(Bytes(100_000_000), machine(100).host(), in_use=300_000_000)


CARD = machine(100, device=80, free=70)


class TestTerms:
    """What runs out separately is budgeted separately."""

    def test_without_a_device_what_was_given_is_the_hosts(self) -> None:
        """And there is nothing else."""
        budgets = terms(machine(100), memory=8).budgets()

        assert (budgets.host.limit, budgets.device, budgets.main) == (8 * GB, None, budgets.host)

    def test_beside_a_device_what_was_given_is_the_devices(self) -> None:
        """The host's is found."""
        budgets = terms(CARD, memory=8).budgets()

        assert budgets.device is not None
        assert (budgets.device.limit, budgets.device.origin, budgets.main) == (8 * GB, "given", budgets.device)
        assert (budgets.host.limit, budgets.host.origin) == (80 * GB, "found")

    def test_the_hosts_beside_a_device_can_be_given(self) -> None:
        """The device's is then found, from what is free there."""
        budgets = terms(CARD, host=30).budgets()

        assert budgets.device is not None
        assert (budgets.host.limit, budgets.host.origin) == (30 * GB, "given")
        assert (budgets.device.limit, budgets.device.origin) == (56 * GB, "found")

    def test_bytes_of_two_pools_are_not_added(self) -> None:
        """A plan of 8.09 GB fits a device's 8.2 GB, whatever else is resident in the host."""
        budgets = terms(CARD, memory=8.2).budgets(InUse(int(1.5 * GB), int(8.09 * GB)))

        assert budgets.main.limit == 8_200_000_000

    @pytest.mark.parametrize(
        ("asked", "in_use", "said"),
        [
            (terms(CARD, memory=8.2), InUse(0, int(8.3 * GB)), r"max_memory is 8\.20 GB, .* occupies 8\.30 GB"),
            (terms(CARD, host=2), InUse(3 * GB, 0), r"max_host_memory is 2\.00 GB, .* occupies 3\.00 GB"),
            (terms(machine(100), memory=2), InUse(3 * GB, 0), r"max_memory is 2\.00 GB, .* occupies 3\.00 GB"),
        ],
        ids=["device", "host beside it", "host alone"],
    )
    def test_a_pool_that_is_spent_is_refused_by_its_own_name(self, asked: Terms, in_use: InUse, said: str) -> None:
        """The message says which setting to raise."""
        with pytest.raises(ConfigError, match=said):
            asked.budgets(in_use)

    def test_a_run_that_goes_on_is_not_refused(self) -> None:
        """It has begun, and its end is the remedies' affair."""
        assert terms(CARD, memory=8).later(InUse(0, 9 * GB)).main.limit == 8 * GB

    def test_what_the_run_holds_already_is_available_to_it(self) -> None:
        """20 GB free and 50 GB its own: 80 % of 70 GB."""
        there = machine(20, device=80, free=20)

        budgets = terms(there).budgets(InUse(10 * GB, 50 * GB))

        assert budgets.device is not None
        assert (budgets.device.limit, budgets.host.limit) == (56 * GB, 24 * GB)
        assert budgets == terms(there).later(InUse(10 * GB, 50 * GB))

    def test_where_host_and_device_share_memory_there_is_one_budget(self) -> None:
        """On Apple silicon what both hold counts against it."""
        asked = terms(machine(20, total=32), memory=8).with_one_pool()

        assert asked.budgets().by_name().keys() == {"unified"}
        with pytest.raises(ConfigError, match=r"occupies 9\.00 GB"):
            asked.budgets(InUse(3 * GB, 6 * GB))

    def test_a_device_can_come_later(self) -> None:
        """Until then what was given is the host's."""
        asked = terms(machine(100), memory=8)

        assert asked.budgets().by_name().keys() == {"host"}
        assert asked.with_device(80 * GB).budgets() == terms(machine(100, device=80), memory=8).budgets()


class TestUnifiedMemory:
    """A device that shares the machine's memory, and recommends how much to hold."""

    MAC = MachineMemory(
        total=Bytes(96 * GB), available=Bytes(92 * GB), unified=True, working_set=Bytes(72 * GB), buffers=499_000
    )

    def test_finds_no_more_than_the_device_recommends(self) -> None:
        """80 % of 92 GB is more than the 72 GB that Metal recommends."""
        found = Terms(machine=self.MAC).budgets()

        assert found.host.limit == 72 * GB
        assert found.host.reason == "found, the device's recommended working set of 72.0 GB"

    def test_lowers_a_given_budget_to_what_the_device_recommends(self) -> None:
        """More than that makes the system page, or the GPU driver fail."""
        given = Terms(machine=self.MAC, max_memory=Bytes(90 * GB)).budgets()

        assert given.host.limit == 72 * GB

    def test_takes_80_percent_where_other_programs_hold_much(self) -> None:
        """What is available is less than what the device recommends."""
        busy = replace(self.MAC, available=Bytes(50 * GB))

        assert Terms(machine=busy).budgets().host.limit == 40 * GB

    def test_keeps_the_limit_of_buffers(self) -> None:
        """It is the device's, and no key of the configuration."""
        assert Terms(machine=self.MAC).budgets().buffers == 499_000


class TestBudgets:
    """Which budget a component counts against."""

    HOST, DEVICE = (Budget(Bytes(number * GB), "given", "") for number in (16, 80))

    @pytest.mark.parametrize(
        ("component", "limit"),
        [("device.active", 80), ("device.other", 80), ("host.pinned", 16), ("host.native", 16)],
    )
    def test_each_counts_against_its_own_pool(self, component: str, limit: int) -> None:
        """Pinned memory is the host's."""
        assert Budgets(self.HOST, self.DEVICE).of(component).limit == limit * GB

    @pytest.mark.parametrize("component", ["device.active", "host.native"])
    def test_in_one_pool_all_count_against_it(self, component: str) -> None:
        """Apple silicon, and runs of older versions, which had one budget."""
        assert Budgets(self.HOST, unified=True).of(component) is self.HOST


class TestLevels:
    """Where a run waits and where it stops, scaled to the machine."""

    @pytest.mark.parametrize(
        ("there", "waiting", "stopping"),
        [(machine(200), 15, 10), (machine(20, total=25), 5, 3.25), (machine(200, cgroup=10), 2, 1.3)],
        ids=["large machine", "small machine", "small cgroup"],
    )
    def test_scale_with_the_machine(self, there: MachineMemory, waiting: float, stopping: float) -> None:
        """15 and 10 GB, or 20 and 13 % of what is less."""
        assert waiting_level(there) == int(waiting * GB)
        assert stopping_level(there) == int(stopping * GB)
