"""The process beside a script: what it holds against which budget, before and after a device is used."""

import os
from pathlib import Path

import pytest

from holdwater.budget import MachineMemory, Terms
from holdwater.detectors.verdict import Verdict, VerdictKind
from holdwater.observe.watcher import Watcher
from holdwater.probes.children import Child
from holdwater.probes.outside import DeviceRoom, Outside
from holdwater.probes.record import NOT_READ, LookRecord
from holdwater.process.channel import Channel, create_channel
from holdwater.units import Bytes, Step

GB = 10**9
HOST = MachineMemory(total=Bytes(256 * GB), available=Bytes(100 * GB))


def new_watcher(folder: Path, *, memory: int | None = None, host: int | None = None) -> tuple[Watcher, Channel]:
    """A watcher of this process and the script's side of its channel; budgets in GB."""
    create_channel(folder / "channel")
    asked = [None if size is None else Bytes(size * GB) for size in (memory, host)]
    terms = Terms(machine=HOST, max_memory=asked[0], max_host_memory=asked[1])
    return Watcher(Outside(os.getpid()), terms, channel=Channel(folder / "channel")), Channel(folder / "channel")


def tell(
    watcher: Watcher,
    script: Channel,
    *,
    resident: float,
    file_and_shared: float = 0.0,
    reserved: float = NOT_READ,
    allocated: float = NOT_READ,
) -> None:
    """Let the script make one step more and say what it holds, in GB; and let the watcher take that in."""
    step = script.get("steps") + 1
    script.put("steps", step)
    script.write(
        LookRecord(
            step=step,
            seconds=0.1 * step,
            cost=1e-5,
            resident=resident * GB,
            file_and_shared=file_and_shared * GB,
            virtual=0.0,
            device_allocated=GB * (reserved if allocated != allocated else allocated),  # noqa: PLR0124 - NaN
            device_reserved=GB * reserved,
        )
    )
    watcher._drain()


def pressed(watcher: Watcher) -> list[str]:
    """The components that were found to press on their budgets."""
    return [one.component for one in watcher.verdict.findings if one.verdict == "pressure"]


class TestCountsInAWorker:
    """A worker that counts what it holds is larger for it."""

    @pytest.mark.parametrize(("counts", "own", "left"), [(1, 0, None), (0, 4_000_000, 96_000_000)])
    def test_are_left_out_while_it_lives(self, tmp_path: Path, counts: int, own: int, left: int | None) -> None:
        """While it counts nothing is read; later, without what the counts have left."""
        assert self.read(tmp_path, 7, counts, own, alive=7) == left

    @pytest.mark.parametrize(("counts", "own"), [(1, 0), (0, 4_000_000)])
    def test_are_none_of_the_others_when_it_is_gone(self, tmp_path: Path, counts: int, own: int) -> None:
        """It was killed in a count: the children are read all the same."""
        assert self.read(tmp_path, 7, counts, own, alive=8) == 100_000_000

    @staticmethod
    def read(folder: Path, pid: int, counts: int, own: int, *, alive: int) -> int | None:
        """What is taken of 100 MB of children, of which one lives."""
        watcher, script = new_watcher(folder)
        for name, value in (("worker_pid", pid), ("worker_counts", counts), ("worker_own", own)):
            script.put(name, value)
        watcher._outside.children._seen = {alive: Child(alive, "a loader worker", 0, 0)}
        seen = {"children_own": 100_000_000}

        watcher._leave_out_counts(seen)

        return seen.get("children_own")


@pytest.mark.parametrize(("kind", "least"), [("leak", 10.0), ("warming", 0.0), ("flat", 0.0)])
def test_only_a_leaks_explanation_is_waited_for(tmp_path: Path, kind: VerdictKind, least: float) -> None:
    """A healthy script's end is not held up by a recording that is still being read."""
    watcher, _ = new_watcher(tmp_path)
    watcher.verdict = Verdict(kind, Step(9), ())

    assert least <= watcher._patience <= least + 1


class TestFilePages:
    """The process counts pages of files and shared memory together; what is shared is read from outside."""

    @pytest.mark.parametrize(("before", "file"), [(0.5, 0.25), (0.4, None)])
    def test_are_the_rest_while_shared_memory_stays(
        self, tmp_path: Path, before: float, file: float | None
    ) -> None:
        """Where it has changed since it was read before, it may have changed again: the rest would be anything."""
        watcher, script = new_watcher(tmp_path)
        watcher._shared_before, watcher._shared = before * GB, 0.5 * GB

        for _ in range(3):
            tell(watcher, script, resident=2, file_and_shared=0.75)

        buckets = watcher.by_step.buckets()
        found = list(buckets.lows("file") / GB) if buckets.seen("file") else []
        assert found == ([] if file is None else [file] * 3)


class TestDevice:
    """The parent cannot know at the start whether a script will use a device."""

    def test_until_then_what_was_given_is_the_hosts(self, tmp_path: Path) -> None:
        """Resident memory above it presses."""
        watcher, script = new_watcher(tmp_path, memory=8)
        tell(watcher, script, resident=9)

        assert watcher.budgets.by_name().keys() == {"host"}
        assert (watcher.budgets.main.limit, pressed(watcher)) == (8 * GB, ["host.native"])

    def test_from_then_on_it_is_the_devices(self, tmp_path: Path) -> None:
        """The script has said how large that is; what was found before was held against another budget."""
        watcher, script = new_watcher(tmp_path, memory=8)
        tell(watcher, script, resident=9)
        script.put("device_size", 80 * GB)
        tell(watcher, script, resident=9, reserved=7)

        device = watcher.budgets.device
        assert device is not None
        assert (device.limit, device.origin, watcher.budgets.host.limit) == (8 * GB, "given", 80 * GB)
        assert not pressed(watcher)

    def test_a_budget_may_be_the_devices_until_the_first_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a machine that has a device: until then nobody is told that the host's memory is over it."""
        monkeypatch.setattr("holdwater.observe.watcher.DEVICE_FILES", ("/dev/null",))
        watcher, script = new_watcher(tmp_path, memory=8)
        before = watcher.knows_budgets
        tell(watcher, script, resident=9)
        after = watcher.knows_budgets
        monkeypatch.setattr("holdwater.observe.watcher.DEVICE_FILES", ())

        script.put("steps", 0)

        assert (before, after, watcher.knows_budgets) == (False, True, True)
        assert pressed(watcher) == ["host.native"]

    def test_reports_a_device_over_a_budget_that_was_given(self, tmp_path: Path) -> None:
        """By what is reserved; the host's budget was given too, and is kept."""
        watcher, script = new_watcher(tmp_path, memory=8, host=10)
        script.put("device_size", 80 * GB)
        tell(watcher, script, resident=9, reserved=8.1, allocated=3)

        assert (watcher.budgets.host.limit, pressed(watcher)) == (10 * GB, ["device.reserved"])

    def test_ignores_a_device_that_is_filled_by_a_cache(self, tmp_path: Path) -> None:
        """97 % reserved and 85 % in use, with no budget given: any healthy run may do that."""
        watcher, script = new_watcher(tmp_path)
        script.put("device_size", 80 * GB)
        tell(watcher, script, resident=9, reserved=77.6, allocated=68)

        device = watcher.budgets.device
        assert device is not None
        assert (device.limit, device.origin, pressed(watcher)) == (64 * GB, "found", [])

    def test_where_host_and_device_are_one_pool_there_is_one_budget(self, tmp_path: Path) -> None:
        """As the script has said."""
        watcher, script = new_watcher(tmp_path, memory=8)
        script.put("unified", 1)
        tell(watcher, script, resident=3, reserved=6)

        assert watcher.budgets.by_name().keys() == {"unified"}
        assert pressed(watcher) == ["device.reserved"]

    def test_a_process_that_says_nothing_is_seen_from_outside(self) -> None:
        """As `holdwater watch` sees it, by the driver's library: others hold 10 GB of the device."""
        outside = Outside(os.getpid())
        outside.device = DeviceRoom(held=30 * GB, free=40 * GB, size=80 * GB)
        watcher = Watcher(outside, Terms(machine=HOST))
        watcher._look_outside()

        assert watcher.budgets.device is not None
        assert watcher.budgets.device.limit == 56 * GB
