"""The ladder in a script's process: host and device each by its own limit, and by one measure."""

from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.probes.statm import Statm
from holdwater.process.restart_context import RestartContext
from holdwater.supervise.budget_callback import BudgetCallback, Ending

MB = 1_000_000
GB = 1000 * MB


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A stand-in for a GPU of 80 GB; what its allocator holds can be set."""
    memory = {"allocated": 30 * GB, "reserved": 70 * GB}

    def stats(*_: Any) -> dict[str, Any]:
        """As the allocator tells it."""
        return {f"{name}_bytes": {"all": {"current": size}} for name, size in memory.items()}

    for name, value in (
        ("is_available", lambda: True),
        ("is_initialized", lambda: True),
        ("synchronize", lambda *_: None),
        ("empty_cache", lambda *_: None),
        ("is_current_stream_capturing", lambda: False),
        ("mem_get_info", lambda *_: (80 * GB - memory["reserved"], 80 * GB)),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda.memory, "memory_stats_as_nested_dict", stats)
    return memory


def recycling(
    tmp_path: Path, *, limit: int, of_device: int | None = None, beside: int | None = None
) -> BudgetCallback:
    """The ladder of a script that cannot be gone on with.

    Args:
        tmp_path: For what it says.
        limit: Of the host's memory, in bytes.
        of_device: Of the device's, if it was given.
        beside: Of the host's memory beside a device; as without one if None.
    """
    (tmp_path / "channel").touch()
    settings = {"limit": limit, "device_limit": of_device, "beside_device": beside}
    restart = RestartContext(
        number=0, channel_path=str(tmp_path / "channel"), in_memory="", out="", settings=settings
    )
    return BudgetCallback(restart, resumable=False)


def steps(ladder: BudgetCallback, count: int, each: Any = lambda: None) -> Ending | None:
    """How the process is to end within so many steps."""
    for step in range(1, count + 1):
        each()
        ending = ladder.end(step)
        if ending is not None:
            return ending
    return None


class TestDevice:
    """What counts of a device depends on whose budget it is."""

    def test_reserved_memory_does_not_break_a_budget_of_the_host(
        self, tmp_path: Path, device: dict[str, int]
    ) -> None:
        """70 GB reserved on the device, a budget of 20 GB that was found: a healthy run."""
        ladder = recycling(tmp_path, limit=20 * GB)

        def swing() -> None:
            """Memory changes a little in each step."""
            device["allocated"] ^= 8 * MB

        assert steps(ladder, 50, swing) is None
        assert not list(tmp_path.glob("actions*"))

    def test_reserved_memory_counts_against_a_budget_that_was_given(
        self, tmp_path: Path, device: dict[str, int]
    ) -> None:
        """A card that stands in for a smaller one."""
        ladder = recycling(tmp_path, limit=20 * GB, of_device=20 * GB)

        def grow() -> None:
            """Take more in each step."""
            device["reserved"] += 8 * MB

        ending = steps(ladder, 50, grow)

        assert ending is not None
        assert "device memory reserved is 70." in ending.reason

    def test_the_host_is_kept_beside_a_device(self, tmp_path: Path, device: dict[str, int]) -> None:
        """A leak of 20 MB a step in host memory, while the device holds what it always holds."""
        device["reserved"] = device["allocated"] = GB
        kept: list[bytearray] = []
        limit = Statm().read()[0] + 400 * MB
        ladder = recycling(tmp_path, limit=max(limit, 1200 * MB), of_device=max(limit, 1200 * MB))

        ending = steps(ladder, 100, lambda: kept.append(bytearray(b"x") * 20 * MB))

        assert ending is not None
        assert not ending.recycled
        assert "resident memory is" in ending.reason

    def test_a_budget_of_the_device_is_none_of_the_host(self, tmp_path: Path, device: dict[str, int]) -> None:
        """A card that stands in for one of 1 GB, beside a host that may hold more: resident memory is no reason."""
        device["reserved"] = device["allocated"] = 700 * MB
        own = Statm().read()[0]
        ladder = recycling(tmp_path, limit=GB, of_device=GB, beside=own + 10 * GB)
        kept: list[bytearray] = []

        def grow() -> None:
            """20 MB a step in the host, until twice the device's budget is resident."""
            if Statm().read()[0] < 2 * GB:
                kept.append(bytearray(b"x") * 20 * MB)

        assert steps(ladder, 100, grow) is None
        assert ladder.room() > 7 * GB
