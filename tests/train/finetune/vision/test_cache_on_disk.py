"""The feature cache in a folder: whole after a crash, one writer, harmless when the disk is full."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from holdwater.train.finetune.vision import disk_storage
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.disk_storage import BLOCKS, HEADER, INDEX, RECORD
from holdwater.units import Bytes

MB = Bytes(1_000_000)
DTYPES = (
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.bool, torch.int8, torch.uint8, torch.int64,
    torch.complex64, torch.float8_e4m3fn, torch.uint16,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "runs" / "cache"


def features(seed: int, count: int = 100) -> dict[str, Tensor]:
    """Features of a picture."""
    return {"pixels": torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).bfloat16()}


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    """Equal."""
    return (
        one is not None and list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in other)
    )


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def descriptors() -> int:
    """Open files of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork
class TestAnotherProcess:
    """What one process leaves, the next one uses."""

    def test_finds_what_was_kept(self, folder: Path) -> None:
        """And goes on from there."""
        for number in range(3):
            with FeatureCache(MB, place=folder) as cache:
                cache.put(str(number), features(number))
        with FeatureCache(MB, place=folder) as cache:
            assert all(same(cache.get(str(number)), features(number)) for number in range(3))

    def test_a_second_one_only_reads(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        """That is said, and the writer is not disturbed."""
        with FeatureCache(MB, place=folder) as writer:
            writer.put("a", features(1))
            with FeatureCache(MB, place=folder) as reader:
                reader.put("b", features(2))
                writer.put("c", features(3))

                assert same(reader.get("a"), features(1))
                assert reader.get("b") is None
            assert same(writer.get("c"), features(3))
            assert writer.get("b") is None
        assert caplog.text.count("this one only reads it") == 1

    def test_a_reader_takes_over_when_the_writer_has_ended(self, folder: Path) -> None:
        """With all that the writer has left."""
        writer = FeatureCache(MB, place=folder)
        with FeatureCache(MB, place=folder) as reader:
            writer.put("a", features(1))
            writer.close()
            reader.put("b", features(2))

            assert same(reader.get("a"), features(1))
            assert same(reader.get("b"), features(2))

    def test_a_fork_reads_and_does_not_write(self, folder: Path) -> None:
        """Two processes that write at the same place would destroy each other's entries."""
        with FeatureCache(MB, place=folder) as cache:
            cache.put("a", features(1))
            child = os.fork()
            if child == 0:
                cache.put("b", features(2))
                right = same(cache.get("a"), features(1)) and cache.get("b") is None
                os._exit(0 if right else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            cache.put("c", features(3))

            assert same(cache.get("c"), features(3))

    def test_a_fork_that_lives_on_does_not_hold_the_lock(self, folder: Path) -> None:
        """A worker of a loader may outlive its parent by seconds."""
        cache = FeatureCache(MB, place=folder)
        read, write = os.pipe()
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.write(told, b"x")
            os.read(read, 1)
            os._exit(0)
        os.read(ready, 1)
        cache.close()
        with FeatureCache(MB, place=folder) as following:
            following.put("a", features(1))
            assert same(following.get("a"), features(1))
        for file in (read, write, ready, told):
            os.close(file)
        os.waitpid(child, 0)

    def test_another_format_is_never_read(self, folder: Path) -> None:
        """The folder is emptied, and begins anew."""
        with FeatureCache(MB, place=folder) as cache:
            cache.put("a", features(1))
        with (folder / INDEX).open("r+b") as index:
            index.write(HEADER.replace(b" 1,", b" 0,"))
        with FeatureCache(MB, place=folder) as cache:
            assert cache.get("a") is None
            assert cache.bytes_used == 0
            cache.put("a", features(2))
            assert same(cache.get("a"), features(2))


KILLED = """
import sys
from pathlib import Path
import torch
from holdwater.train.finetune.vision.cache import FeatureCache
cache = FeatureCache(50_000_000, place=Path(sys.argv[1]))
number = cache._storage._table.__len__()
while True:
    cache.put(str(number), {"value": torch.full((number % 7 * 5000 + 1,), float(number))})
    number += 1
    if number % 20 == 0:
        print(number, flush=True)
"""


class TestDamage:
    """Every entry that is returned is whole."""

    def test_a_process_that_is_killed_leaves_whole_entries(self, folder: Path) -> None:
        """Three writers one after another, each killed while it writes."""
        known = 0
        for kill in range(1, 4):
            command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                while known < 60 * kill:
                    known = int(process.stdout.readline())
                process.send_signal(signal.SIGKILL)
            with FeatureCache(Bytes(50_000_000), place=folder) as cache:
                for number in range(known):
                    found = cache.get(str(number))
                    assert found is not None
                    assert torch.equal(found["value"], torch.full((number % 7 * 5000 + 1,), float(number)))
                assert cache.bytes_used == size_of(folder)

    @given(cut=st.integers(0, 2000), of=st.sampled_from([INDEX, BLOCKS]))
    @settings(max_examples=40, deadline=None)
    def test_files_cut_anywhere_open(self, cut: int, of: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """What is not whole is a miss, and can be written anew."""
        folder = tmp_path_factory.mktemp("cache")
        with FeatureCache(MB, place=folder) as cache:
            for number in range(5):
                cache.put(str(number), features(number, 20))
        path = folder / of
        os.truncate(path, max(path.stat().st_size - cut, 0))

        with FeatureCache(MB, place=folder) as cache:
            for number in range(5):
                found = cache.get(str(number))
                assert found is None or same(found, features(number, 20))
                cache.put(str(number), features(number, 20))
            assert all(same(cache.get(str(number)), features(number, 20)) for number in range(5))
        with FeatureCache(MB, place=folder) as cache:
            assert all(same(cache.get(str(number)), features(number, 20)) for number in range(5))

    @given(at=st.integers(0, 10_000), of=st.sampled_from([INDEX, BLOCKS]), bit=st.integers(0, 7))
    @settings(max_examples=60, deadline=None)
    def test_no_flipped_bit_is_returned(
        self, at: int, of: str, bit: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """In either file."""
        folder = tmp_path_factory.mktemp("cache")
        with FeatureCache(MB, place=folder) as cache:
            for number in range(5):
                cache.put(str(number), features(number, 20))
        data = bytearray((folder / of).read_bytes())
        data[at % len(data)] ^= 1 << bit
        (folder / of).write_bytes(data)

        with FeatureCache(MB, place=folder) as cache:
            found = [cache.get(str(number)) for number in range(5)]
        assert all(one is None or same(one, features(number, 20)) for number, one in enumerate(found))

    def test_damaged_entries_are_said_once_and_written_in_their_place(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """So that damage does not make the cache grow."""
        with FeatureCache(MB, place=folder) as cache:
            for number in range(3):
                cache.put(str(number), features(number))
        size = size_of(folder)
        (folder / BLOCKS).write_bytes(bytes((folder / BLOCKS).stat().st_size))
        with caplog.at_level(logging.WARNING), FeatureCache(MB, place=folder) as cache:
            for number in range(3):
                assert cache.get(str(number)) is None
                cache.put(str(number), features(number))
                assert same(cache.get(str(number)), features(number))
        assert caplog.text.count("an entry is damaged") == 1
        assert size_of(folder) == size
        with FeatureCache(MB, place=folder) as cache:
            assert all(same(cache.get(str(number)), features(number)) for number in range(3))


FULL = """
import resource, sys
from pathlib import Path
import torch
from holdwater.train.finetune.vision.cache import FeatureCache
cache = FeatureCache(50_000_000, place=Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file may grow beyond
for number in range(100):
    cache.put(str(number), {"value": torch.full((1000,), float(number))})
found = [cache.get(str(number)) for number in range(100)]
kept = [number for number, one in enumerate(found) if one is not None]
assert kept == list(range(len(kept))), kept
assert all(torch.equal(found[number]["value"], torch.full((1000,), float(number))) for number in kept)
print(len(kept))
"""


class TestDisk:
    """Neither a full disk nor an unusable folder ends a run."""

    def test_a_full_disk_stops_the_growth(self, folder: Path) -> None:
        """Said once; what is there is found, now and later."""
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=True, timeout=120
        )
        count = int(done.stdout)

        assert 20 <= count <= 24
        assert done.stderr.count("nothing is added any more") == 1
        with FeatureCache(MB, place=folder) as cache:
            assert cache.get(str(count - 1)) is not None
            assert cache.bytes_used == size_of(folder)

    def test_leaves_room_for_checkpoints(
        self, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before the disk is full; said once."""
        with FeatureCache(MB, place=folder) as cache:
            cache.put("a", features(1))
            monkeypatch.setattr(disk_storage, "SPARE", 2**62)
            for key in "bcd":
                cache.put(key, features(2))

            assert same(cache.get("a"), features(1))
            assert cache.get("b") is None
        assert caplog.text.count("nothing is added any more") == 1

    def test_a_folder_that_cannot_be_used_keeps_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file lies where the folder should be."""
        (tmp_path / "file").touch()
        with FeatureCache(MB, place=tmp_path / "file" / "cache") as cache:
            cache.put("a", features(1))

            assert cache.get("a") is None
        assert caplog.text.count("cannot be used") == 1

    def test_everything_opened_is_closed(self, folder: Path) -> None:
        """Three files, however many entries."""
        before = descriptors()
        cache = FeatureCache(MB, place=folder)
        for number in range(50):
            cache.put(str(number), features(number))
            cache.get(str(number))
        assert descriptors() == before + 3
        with FeatureCache(MB, place=folder):
            pass
        cache.close()

        assert descriptors() == before
        cache.close()


@pytest.fixture
def large_index(folder: Path) -> Path:
    """The index of 200,000 entries."""
    folder.mkdir(parents=True)
    numbers = torch.arange(200_000, dtype=torch.int64)
    with (folder / INDEX).open("wb") as index:
        index.write(HEADER)
        for number in numbers.tolist():
            digest = (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little") * 2
            record = RECORD.pack(digest, number, 1, 0, 0)[:-4]
            index.write(record + zlib.crc32(record).to_bytes(4, "little"))
    return folder


def test_an_entry_takes_less_than_100_bytes_of_memory(large_index: Path) -> None:
    """What Python and numpy hold for it."""
    tracemalloc.start()
    with FeatureCache(Bytes(10**12), place=large_index) as cache:
        for number in range(20_000):
            cache.put(str(number), {})
        held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert held / 220_000 < 40
