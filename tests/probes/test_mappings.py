"""What became resident within regions that had been mapped before, and outside them."""

import mmap
import os
from pathlib import Path

import pytest

from holdwater.probes.mappings import Region, parse_regions, read_regions, touched

MIB = 1 << 20

SMAPS = """\
5587a000-5597a000 rw-p 00000000 00:00 0                                  [heap]
Size:               1024 kB
Rss:                 512 kB
Anonymous:           512 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000400000 r--s 00000000 08:01 1234                       /data/corpus.bin
Size:               4096 kB
Rss:                1024 kB
Anonymous:             0 kB
VmFlags: rd mr
7f0001000000-7f0001100000 rw-s 00000000 00:01 99                         /dev/shm/psm_1
Size:               1024 kB
Rss:                1024 kB
Anonymous:             0 kB
7f0002000000-7f0002100000 ---p 00000000 00:00 0
Size:               1024 kB
Rss:                   0 kB
Anonymous:             0 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
Size:                132 kB
Rss:                  16 kB
Anonymous:            16 kB
"""


class TestReadingRegions:
    """Of the kernel's table."""

    def test_takes_private_memory_and_files(self) -> None:
        """Shared memory, stacks and reserved space that may not be touched are left out."""
        assert parse_regions(SMAPS.splitlines()) == (
            Region(0x5587A000, 0x5597A000, 512 * 1024, "private"),
            Region(0x7F0000000000, 0x7F0000400000, 1024 * 1024, "file"),
        )

    def test_knows_what_an_allocator_has_reserved(self) -> None:
        """By the kernel's flag of the region, which stands last."""
        reserved = SMAPS.replace("me ac sd", "me nr sd")

        assert [region.reserved for region in parse_regions(SMAPS.splitlines())] == [False, False]
        assert [region.reserved for region in parse_regions(reserved.splitlines())] == [True, False]

    def test_a_process_that_is_gone_has_none(self) -> None:
        """No error."""
        assert read_regions(2**22 + 1) == ()


class TestTouched:
    """Where growth lies."""

    def test_a_region_that_fills_has_a_bound(self) -> None:
        """An array that was allocated whole: 30 of 100 MiB were touched."""
        before = (Region(0, 100 * MIB, 10 * MIB, "private"),)
        after = (Region(0, 100 * MIB, 40 * MIB, "private"),)

        found = touched(before, after, "private", since_step=3)

        assert (found.inside, found.fresh, found.room, found.since_step) == (30 * MIB, 0, 60 * MIB, 3)
        assert found.has_a_bound

    def test_what_an_allocator_has_reserved_has_none(self) -> None:
        """A gigabyte of address space for small blocks, of which more and more is used."""
        before = (Region(0, 1024 * MIB, 10 * MIB, "private", reserved=True),)
        after = (Region(0, 1024 * MIB, 40 * MIB, "private", reserved=True),)

        found = touched(before, after, "private", since_step=3)

        assert (found.inside, found.fresh, found.room) == (0, 30 * MIB, 0)
        assert not found.has_a_bound

    def test_new_regions_have_none(self) -> None:
        """One more file each step."""
        before = (Region(0, MIB, MIB, "file"),)
        after = (*before, Region(2 * MIB, 4 * MIB, 2 * MIB, "file"))

        found = touched(before, after, "file", since_step=0)

        assert (found.inside, found.fresh) == (0, 2 * MIB)
        assert not found.has_a_bound

    @pytest.mark.parametrize(("name", "data"), [("/data/shard-3.bin", 2 * MIB), ("/usr/lib/libcudart.so.13", 0)])
    def test_tells_data_from_code(self, name: str, data: int) -> None:
        """A library that is loaded late is read in like a file that is mapped anew."""
        smaps = f"7f0000000000-7f0000200000 r--p 00000000 00:00 1 {name}\nRss: 2048 kB\nAnonymous: 0 kB\n"

        found = touched((), parse_regions(smaps.splitlines()), "file", since_step=0)

        assert (found.fresh, found.data) == (2 * MIB, data)

    def test_a_region_that_was_enlarged_is_new_by_so_much(self) -> None:
        """The kernel merges neighbours: a heap that grows is one region that becomes larger."""
        before = (Region(0, 10 * MIB, 10 * MIB, "private"),)
        after = (Region(0, 30 * MIB, 28 * MIB, "private"),)

        found = touched(before, after, "private", since_step=0)

        assert (found.inside, found.fresh) == (0, 18 * MIB)

    def test_other_kinds_are_passed_over(self) -> None:
        """Growth of a file is none of private memory."""
        before = (Region(0, 10 * MIB, MIB, "file"),)
        after = (Region(0, 10 * MIB, 5 * MIB, "file"),)

        assert touched(before, after, "private", since_step=0).inside == 0

    @pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel keeps no table of mappings here")
    def test_sees_real_memory_that_is_touched_late(self) -> None:
        """64 MiB mapped, half of it touched."""
        with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
            before = read_regions(os.getpid())
            for at in range(0, 32 * MIB, 4096):
                area[at] = 1
            found = touched(before, read_regions(os.getpid()), "private", since_step=0)

        assert 31 * MIB < found.inside < 36 * MIB
        assert found.room >= 31 * MIB
        assert found.has_a_bound
