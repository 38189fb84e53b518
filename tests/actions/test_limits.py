"""Limits of the frameworks' own: lowered to the budget, never raised, and no device is started for it."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from holdwater.actions.limits import LimitChange, set_framework_limits
from holdwater.budget import Budget
from holdwater.errors import ConfigError
from holdwater.probes.devices import EXTERNAL
from holdwater.testing import StandInMetal
from holdwater.units import Bytes

GB = 10**9
Frameworks = Callable[..., list[tuple[str, Any]]]


def limit_to(gigabytes: float) -> list[str]:
    """Set the limits to a budget; return what was changed, for people."""
    return [str(change) for change in set_framework_limits(Budget(Bytes(int(gigabytes * GB)), "given", ""))]


def test_limits_of_frameworks_that_are_not_loaded_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program has loaded none, there is nothing to set, and nothing is imported."""
    for name in ("torch", "mlx.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert limit_to(1) == []


def test_a_limit_is_shown_before_and_after() -> None:
    """People see what was changed."""
    assert str(LimitChange("MLX memory", "20.0 GB", "8.00 GB")) == "MLX memory: 20.0 GB -> 8.00 GB"


class TestCuda:
    """A share of the device."""

    def test_is_lowered_to_the_budget(self, frameworks: Frameworks) -> None:
        """20 GB of 80."""
        asked = frameworks(cuda="in use")

        changed = limit_to(20)

        assert asked == [("cuda fraction", 0.25)]
        assert changed == ["CUDA memory of this process: 100.0% of 80.0 GB -> 25.0% of 80.0 GB"]

    @pytest.mark.parametrize("budget", [40, 60])
    def test_is_never_raised(self, frameworks: Frameworks, budget: float) -> None:
        """The program has allowed itself half of the device."""
        asked = frameworks(cuda="in use", fraction=0.5)

        changed = limit_to(budget)

        assert asked == []
        assert changed == ["CUDA memory of this process: 50.0% of 80.0 GB -> 50.0% of 80.0 GB"]

    def test_leaves_room_for_what_another_process_of_the_run_holds(
        self, frameworks: Frameworks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights of 12 GB that a weight server keeps; a budget that they fill leaves nothing, and not less."""
        asked = frameworks(cuda="in use")
        monkeypatch.setattr(EXTERNAL, "held", Bytes(12 * GB))

        limit_to(20)
        limit_to(10)

        assert asked == [("cuda fraction", 0.1), ("cuda fraction", 0.0)]

    @pytest.mark.parametrize("cuda", ["absent", "visible"])
    def test_no_device_is_started_for_it(self, frameworks: Frameworks, cuda: str) -> None:
        """Workers that are forked later could not use it."""
        asked = frameworks(cuda=cuda)

        assert limit_to(20) == []
        assert asked == []


class TestMps:
    """A share of what Metal recommends."""

    @pytest.mark.parametrize(("budget", "share"), [(4, 0.25), (16, 1.0), (64, 1.0)])
    def test_is_set_to_the_budget(self, frameworks: Frameworks, budget: float, share: float) -> None:
        """No more than all of it."""
        asked = frameworks(mps=True)

        changed = limit_to(budget)

        assert asked == [("mps fraction", share)]
        assert changed == [f"MPS memory of this process: PyTorch's default -> {share:.1%} of 16.0 GB"]


class TestMlx:
    """Memory, and the part of it that may be cache."""

    def test_is_lowered_to_the_budget(self, frameworks: Frameworks) -> None:
        """8 GB, of which a quarter may be cache."""
        asked = frameworks(mlx=True)

        changed = limit_to(8)

        assert asked == [("mlx limit", 8 * GB), ("mlx cache", 2 * GB)]
        assert changed == ["MLX memory: 20.0 GB -> 8.00 GB", "MLX cache: 20.0 GB -> 2.00 GB"]

    def test_is_never_raised(self, frameworks: Frameworks) -> None:
        """What was set is found by setting it, so it is put back."""
        asked = frameworks(mlx=True, mlx_limit=GB)

        changed = limit_to(8)

        assert asked == [("mlx limit", 8 * GB), ("mlx limit", GB), ("mlx cache", 2 * GB), ("mlx cache", GB)]
        assert changed == ["MLX memory: 1.00 GB -> 1.00 GB", "MLX cache: 1.00 GB -> 1.00 GB"]


class TestWiredLimit:
    """How much MLX may wire is the user's decision alone."""

    def test_is_left_alone(self, frameworks: Frameworks) -> None:
        """A budget says nothing of wired memory."""
        asked = frameworks(mlx=True)

        limit_to(8)

        assert "mlx wired" not in dict(asked)

    def test_is_set_where_it_was_given(self, frameworks: Frameworks) -> None:
        """It is shown before and after, like the others."""
        asked = frameworks(mlx=True)

        changes = set_framework_limits(Budget(Bytes(8 * GB), "given", ""), wired=Bytes(6 * GB))

        assert asked[-1] == ("mlx wired", 6 * GB)
        assert str(changes[-1]) == "MLX wired memory: 0 B -> 6.00 GB"

    def test_more_than_the_device_recommends_is_refused(self, frameworks: Frameworks) -> None:
        """MLX would raise an error without a cure."""
        asked = frameworks(mlx=True)

        with (
            StandInMetal(working_set=10 * GB).installed(),
            pytest.raises(ConfigError, match=r"at most; set it lower"),
        ):
            set_framework_limits(Budget(Bytes(8 * GB), "given", ""), wired=Bytes(20 * GB))

        assert "mlx wired" not in dict(asked)
