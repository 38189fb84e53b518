"""The budget: given or found, and never above what the machine allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.budget import MachineMemory, find_budget, give_budget, stopping_level, waiting_level
from holdwater.errors import ConfigError
from holdwater.units import Bytes

GB = 10**9


def machine(
    available: float, *, total: float = 256, cgroup: float | None = None, device: float | None = None
) -> MachineMemory:
    """A machine; sizes in GB."""
    return MachineMemory(
        total=Bytes(int(total * GB)),
        available=Bytes(int(available * GB)),
        cgroup_limit=None if cgroup is None else Bytes(int(cgroup * GB)),
        device_size=None if device is None else Bytes(int(device * GB)),
    )


class TestFindBudget:
    """Without a budget of the user's, one is found."""

    @pytest.mark.parametrize(
        ("there", "limit"),
        [
            (machine(100), 80),
            (machine(18), 16),
            (machine(10), 10),
            (machine(200), 120),
            (machine(100, cgroup=8), 8),
            (machine(100, device=24), 24),
            (machine(100, cgroup=30, device=24), 24),
        ],
        ids=["80 %", "at least 16 GB", "all there is", "at most 120 GB", "cgroup", "device", "the smaller"],
    )
    def test_follows_the_rule(self, there: MachineMemory, limit: float) -> None:
        """80 % of what is available, at least 16 and at most 120 GB, within cgroup and device."""
        assert find_budget(there).limit == limit * GB

    def test_says_where_it_comes_from(self) -> None:
        """The line names the number and its source."""
        assert str(find_budget(machine(100))) == "budget 80.0 GB: found, 80% of the 100 GB available"

    @given(
        available=st.floats(min_value=0.1, max_value=2000),
        cgroup=st.none() | st.floats(min_value=0.1, max_value=2000),
        device=st.none() | st.floats(min_value=0.1, max_value=2000),
    )
    def test_never_exceeds_a_limit(self, available: float, cgroup: float | None, device: float | None) -> None:
        """Whatever the machine: within available memory, cgroup, device and 120 GB."""
        there = machine(available, total=4000, cgroup=cgroup, device=device)

        limit = find_budget(there).limit

        ceilings = [there.available, there.cgroup_limit, there.device_size, 120 * GB]
        assert limit <= min(ceiling for ceiling in ceilings if ceiling is not None)


class TestGiveBudget:
    """The user's budget is kept, or refused with a reason."""

    def test_is_taken_as_given(self) -> None:
        """Nothing is taken off."""
        budget = give_budget(Bytes(70 * GB), machine(100))

        assert (budget.limit, budget.origin) == (70 * GB, "given")

    def test_is_lowered_to_a_cgroup(self) -> None:
        """A cgroup would kill the process first; the line says so."""
        budget = give_budget(Bytes(70 * GB), machine(100, cgroup=8))

        assert budget.limit == 8 * GB
        assert "lowered to the cgroup limit" in budget.reason

    def test_is_refused_when_the_process_occupies_it_already(self) -> None:
        """The message names both sizes and what to write."""
        with pytest.raises(ConfigError, match=r"max_memory is 100 MB, .* occupies 300 MB .* above 375 MB"):
            give_budget(Bytes(100_000_000), machine(100), in_use=300_000_000)


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
