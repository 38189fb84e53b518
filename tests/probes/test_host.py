"""Readings of the host: right on files made for the purpose, plausible on this machine."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from holdwater.errors import ProbeError
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.heap import Heap, replaced_allocator
from holdwater.probes.host import Available, PressureProbe, ProcessParts, Resident, read_kib_table
from holdwater.probes.processes import SharedMemoryFiles
from holdwater.probes.statm import read_resident

LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
UNLIMITED = "9223372036854771712"


def write(folder: Path, **files: str) -> Path:
    """Make a folder of small files; a double underscore stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


class TestResident:
    """Resident memory of this process."""

    @LINUX
    def test_sees_memory_that_is_touched(self) -> None:
        """100 MB of ones are 100 MB more."""
        probe = Resident()
        before = probe.read()

        block = np.ones(100_000_000, np.uint8)

        assert probe.read() - before == pytest.approx(block.nbytes, rel=0.1)
        probe.close()

    @LINUX
    def test_ignores_memory_that_is_only_reserved(self) -> None:
        """Zero pages that nobody touched are not resident."""
        probe = Resident()
        before = probe.read()

        block = np.zeros(100_000_000, np.uint8)

        assert probe.read() - before < 10_000_000
        del block
        probe.close()


@LINUX
def test_a_single_reading_leaves_nothing_open() -> None:
    """The watcher makes one at each write."""
    before = len(list(Path("/proc/self/fd").iterdir()))

    sizes = [read_resident() for _ in range(20)]

    assert min(sizes) > 1_000_000
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestTables:
    """Files of `Name: 123 kB` lines."""

    def test_reads_sizes_and_leaves_other_lines_out(self, tmp_path: Path) -> None:
        """KB in /proc are KiB; counts without a unit are no sizes."""
        table = tmp_path / "status"
        table.write_text("Name:\tpython\nRssAnon:\t     116 kB\nThreads:\t1\n")

        assert read_kib_table(table) == {"RssAnon": 118_784}

    def test_says_which_file_is_missing(self, tmp_path: Path) -> None:
        """A reading that fails is a probe error, never a crash."""
        with pytest.raises(ProbeError, match="status"):
            read_kib_table(tmp_path / "status")

    def test_parts_are_named_as_in_a_look(self, tmp_path: Path) -> None:
        """A kernel that lacks a part leaves it out: missing is not zero."""
        table = tmp_path / "status"
        table.write_text("RssAnon: 10 kB\nRssFile: 20 kB\nVmHWM: 40 kB\n")

        assert ProcessParts(table).read() == {"anonymous": 10_240, "file": 20_480, "peak_resident": 40_960}

    def test_pressure_is_read_in_percent(self, tmp_path: Path) -> None:
        """The first number of the line `some`."""
        path = tmp_path / "memory"
        path.write_text("some avg10=1.25 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00\n")

        assert PressureProbe(path).read() == {"pressure": 1.25}

    def test_pressure_says_why_it_is_unavailable(self, tmp_path: Path) -> None:
        """A kernel without PSI has no such file."""
        assert "No such file" in str(PressureProbe(tmp_path / "memory").unavailable())


class TestCgroup:
    """Limits of control groups, on trees made for the purpose."""

    def test_version_1_takes_the_smallest_limit_on_the_way_up(self, tmp_path: Path) -> None:
        """An ancestor may be tighter than the group itself."""
        write(tmp_path / "memory", memory__limit_in_bytes=UNLIMITED)
        write(
            tmp_path / "memory/a",
            memory__limit_in_bytes="4000",
            memory__usage_in_bytes="1000",
            memory__stat="total_inactive_file 300\n",
        )
        write(tmp_path / "memory/a/b", memory__limit_in_bytes="9000")
        membership = tmp_path / "cgroup"
        membership.write_text("9:cpu:/x\n4:memory:/a/b\n0::/\n")

        group = Cgroup.of_this_process(tmp_path, membership)

        assert (group.version, group.limit, group.usage()) == (1, 4000, 700)

    def test_version_2_reads_max_and_current(self, tmp_path: Path) -> None:
        """Page cache that can be dropped is not usage (a look-alike that misled many)."""
        write(
            tmp_path / "job",
            memory__max="8000",
            memory__current="5000",
            memory__stat="anon 1\ninactive_file 3000\nactive_file 900\nslab_reclaimable 100\n",
        )
        membership = tmp_path / "cgroup"
        membership.write_text("0::/job\n")

        group = Cgroup.of_this_process(tmp_path, membership)

        assert (group.version, group.limit, group.usage()) == (2, 8000, 1000)

    def test_no_limit_is_none(self, tmp_path: Path) -> None:
        """`max` is no number."""
        write(tmp_path / "job", memory__max="max\n")
        membership = tmp_path / "cgroup"
        membership.write_text("0::/job\n")

        assert Cgroup.of_this_process(tmp_path, membership).limit is None

    def test_a_path_from_outside_the_container_falls_back_to_the_mount(self, tmp_path: Path) -> None:
        """Inside a container the group's path often does not exist below the mount."""
        write(tmp_path, memory__max="8000")
        membership = tmp_path / "cgroup"
        membership.write_text("0::/docker/0123\n")

        assert Cgroup.of_this_process(tmp_path, membership).limit == 8000

    def test_available_is_the_lesser_of_machine_and_cgroup(self, tmp_path: Path) -> None:
        """A cgroup with 1 kB left is nearly full, whatever the machine has."""
        meminfo = tmp_path / "meminfo"
        meminfo.write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n")
        write(tmp_path / "g", memory__current="7000", memory__stat="")

        from holdwater.units import Bytes

        assert Available(meminfo, Cgroup(tmp_path / "g", 2, Bytes(8000))).read()["available"] == 1000
        assert Available(meminfo, Cgroup(None, None, None)).read() == {"available": 512_000}


class TestHeap:
    """malloc's own account."""

    @pytest.mark.skipif(Heap().unavailable() is not None, reason=f"{Heap().unavailable()}")
    def test_sees_a_block_that_is_allocated(self) -> None:
        """50 MB more in use."""
        probe = Heap()
        before = probe.read()["heap_in_use"]

        block = np.empty(50_000_000, np.uint8)

        assert probe.read()["heap_in_use"] - before == pytest.approx(block.nbytes, rel=0.1)

    def test_finds_out_which_allocator_is_loaded(self, tmp_path: Path) -> None:
        """mallinfo2 sees nothing of jemalloc: the reading must not be trusted."""
        maps = tmp_path / "maps"
        maps.write_text("7f00 r-xp /usr/lib/libjemalloc.so.2\n")

        assert replaced_allocator(maps) == "jemalloc"

    def test_finds_nothing_where_malloc_is_malloc(self, tmp_path: Path) -> None:
        """The usual case."""
        maps = tmp_path / "maps"
        maps.write_text("7f00 r-xp /usr/lib/libc.so.6\n")

        assert replaced_allocator(maps) is None


class TestSharedMemoryFiles:
    """Files in /dev/shm that this run made."""

    def test_counts_what_a_process_holds_open_and_ignores_old_files(self, tmp_path: Path) -> None:
        """What was there before the run is not the run's."""
        probe = SharedMemoryFiles(tmp_path)
        with (tmp_path / "one").open("wb") as file:
            file.write(b"x" * 100_000)
            file.flush()
            counted = probe.read()["dev_shm"]
            probe._since += 3600

            assert probe.read() == {"dev_shm": 0}
        assert counted >= 100_000

    def test_counts_a_file_that_the_kernel_dates_back_to_its_last_tick(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """New files bear the time of a clock that goes in steps of up to 10 ms."""
        with (tmp_path / "one").open("wb") as file:
            file.write(b"x" * 100_000)
            file.flush()
            made = os.fstat(file.fileno()).st_ctime
            monkeypatch.setattr(time, "time", lambda: made + 0.008)
            probe = SharedMemoryFiles(tmp_path)

            assert probe.read()["dev_shm"] >= 100_000

    def test_keeps_counting_what_was_seen_to_be_its_own(self, tmp_path: Path) -> None:
        """A file that is closed and never unlinked."""
        probe = SharedMemoryFiles(tmp_path)
        with (tmp_path / "one").open("wb") as file:
            file.write(b"x" * 100_000)
            file.flush()
            probe.read()

        assert probe.read()["dev_shm"] >= 100_000

    def test_ignores_files_of_other_programs(self, tmp_path: Path) -> None:
        """Another training of the same user."""
        probe = SharedMemoryFiles(tmp_path)
        (tmp_path / "another-program").write_bytes(b"x" * 100_000)
        (tmp_path / "torch_999999999_17_0").write_bytes(b"x" * 100_000)

        assert probe.read() == {"dev_shm": 0}

    @pytest.mark.parametrize("name", ["torch_{}_17_0", "psm_noted"])
    def test_counts_what_is_named_or_noted_as_its_own(self, name: str, tmp_path: Path) -> None:
        """PyTorch puts the process into the name; Python's own are noted as they are made."""
        (tmp_path / "notes").write_text("psm_other\npsm_noted\n")
        folder = tmp_path / "shm"
        folder.mkdir()
        probe = SharedMemoryFiles(folder, noted=tmp_path / "notes")
        (folder / name.format(os.getpid())).write_bytes(b"x" * 100_000)

        assert probe.read()["dev_shm"] >= 100_000
