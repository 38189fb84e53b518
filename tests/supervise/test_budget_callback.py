"""The ladder in a script's process: host and device each by its own limit, and by one measure."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.probes.statm import Statm
from holdwater.process.restart_context import RestartContext
from holdwater.supervise.budget_callback import BudgetCallback, Ending
from holdwater.testing import StandInMetal

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
    return callback(tmp_path, settings, resumable=False)


def callback(tmp_path: Path, settings: dict[str, Any], *, resumable: bool) -> BudgetCallback:
    """What a supervisor with these settings lets a script call."""
    path = str(tmp_path / "channel")
    restart = RestartContext(number=0, channel_path=path, in_memory="", out="", settings=settings)
    return BudgetCallback(restart, resumable=resumable)


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


class TestInterval:
    """A process is replaced after so many steps of its own."""

    def test_counts_the_steps_of_this_process(self, tmp_path: Path) -> None:
        """It has continued from step 100, and memory does not change."""
        settings = {"limit": Statm().read()[0] + 100 * GB, "reload_interval": 3}
        ladder = callback(tmp_path, settings, resumable=True)

        endings = [ladder.end(step) for step in (101, 102, 103)]

        assert endings == [None, None, Ending(recycled=True, reason="every 3 steps, as configured")]

    def test_replaces_after_the_first_step(self, tmp_path: Path) -> None:
        """An interval of one."""
        ladder = callback(tmp_path, {"limit": Statm().read()[0] + 100 * GB, "reload_interval": 1}, resumable=True)

        assert ladder.end(101) == Ending(recycled=True, reason="every 1 steps, as configured")

    def test_never_replaces_what_cannot_go_on(self, tmp_path: Path) -> None:
        """A script that has registered nothing."""
        settings = {"limit": Statm().read()[0] + 100 * GB, "reload_interval": 1}
        ladder = callback(tmp_path, settings, resumable=False)

        assert [ladder.end(step) for step in (1, 2, 3)] == [None, None, None]


class TestUnifiedMemory:
    """A Mac, of which resident memory tells nothing."""

    def test_a_leak_that_resident_memory_does_not_see_is_replaced(self, tmp_path: Path) -> None:
        """2,000 MB a step in MLX's arrays: a fresh process follows before 70 GB are spent."""
        mac = StandInMetal(active=17 * GB, private=GB)

        def grow() -> None:
            """A step."""
            mac.active += 2 * GB

        with mac.installed():
            ending = steps(callback(tmp_path, {"limit": 70 * GB}, resumable=True), 100, grow)

        assert ending is not None
        assert ending.recycled
        assert mac.footprint().total < 70 * GB
        assert "the process's footprint is" in ending.reason

    def test_the_budget_is_never_above_what_the_device_recommends(self, tmp_path: Path) -> None:
        """The supervisor itself uses no device, so it does not know that."""
        mac = StandInMetal(active=20 * GB, working_set=40 * GB)

        def grow() -> None:
            """A step."""
            mac.active += GB

        with mac.installed():
            ending = steps(callback(tmp_path, {"limit": 70 * GB}, resumable=True), 100, grow)

        assert ending is not None
        assert mac.active < 40 * GB

    def test_a_number_of_buffers_near_its_limit_is_replaced(self, tmp_path: Path) -> None:
        """Bytes stand still."""
        mac = StandInMetal(active=7 * GB, private=GB, buffer_count=20_000)

        def grow() -> None:
            """A step: buffers are counted by the clock."""
            time.sleep(0.005)
            assert mac.buffer_count is not None
            mac.buffer_count += 15_000

        with mac.installed():
            ending = steps(callback(tmp_path, {"limit": 70 * GB}, resumable=True), 100, grow)

        assert ending is not None
        assert ending.recycled
        assert "the number of buffers is" in ending.reason
        assert mac.buffer_count is not None
        assert mac.buffer_count < mac.most_buffers
