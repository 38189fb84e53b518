"""The ring between a script's process and the one beside it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdwater.errors import StoreError
from holdwater.probes.record import LookRecord
from holdwater.process.channel import CAPACITY, Channel, create_channel


def record(step: int) -> LookRecord:
    """A record of that step."""
    return LookRecord(step, 0.5, 0.5, 0.5, 0.5, 0.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty channel."""
    create_channel(tmp_path / "channel")
    return tmp_path / "channel"


class TestChannel:
    """Gives back what was written, in order."""

    def test_gives_back_what_is_new(self, path: Path) -> None:
        """Each record once."""
        writer, reader = Channel(path), Channel(path)
        writer.write(record(1))
        writer.write(record(2))

        first, count = reader.read(0)
        writer.write(record(3))
        second, _ = reader.read(count)

        assert [row[0] for row in first] == [1.0, 2.0]
        assert [row[0] for row in second] == [3.0]

    def test_all_of_its_space_is_allocated(self, path: Path) -> None:
        """A store to a page without space would be a SIGBUS."""
        status = path.stat()

        assert 512 * status.st_blocks >= status.st_size

    def test_a_file_that_cannot_be_allocated_is_not_left(self, tmp_path: Path) -> None:
        """The size of files is limited, as on a full disk."""
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from holdwater.errors import StoreError; from holdwater.process.channel import create_channel\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try: create_channel(Path(sys.argv[1]))\n"
            "except StoreError as error: print(error)"
        )

        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "channel")], capture_output=True, text=True, check=True
        )

        assert "cannot be created: File too large" in done.stdout
        assert not (tmp_path / "channel").exists()

    def test_a_late_reader_gets_the_newest(self, path: Path) -> None:
        """Of a ring that went round, only what cannot be overwritten meanwhile."""
        channel = Channel(path)
        for step in range(CAPACITY + 10):
            channel.write(record(step))

        rows, count = channel.read(0)

        assert count == CAPACITY + 10
        assert rows[-1][0] == CAPACITY + 9
        assert len(rows) == CAPACITY // 2

    def test_survives_the_death_of_the_writer(self, path: Path) -> None:
        """The kernel keeps the page."""
        code = (
            "import os, sys; from pathlib import Path; from holdwater.process.channel import Channel\n"
            "from holdwater.probes.record import LookRecord\n"
            "channel = Channel(Path(sys.argv[1])); channel.put('steps', 7)\n"
            "channel.write(LookRecord(*[7.0] * 6)); os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)

        reader = Channel(path)
        assert done.returncode == -signal.SIGKILL
        assert reader.get("steps") == 7
        assert reader.read(0)[0][0][0] == 7.0

    def test_states_and_sources_come_back(self, path: Path) -> None:
        """As words."""
        writer, reader = Channel(path), Channel(path)
        writer.state, writer.source = "ending", "mlx"

        assert (reader.state, reader.source) == ("ending", "mlx")

    def test_refuses_another_file(self, tmp_path: Path) -> None:
        """A file that is no channel."""
        other = tmp_path / "other"
        other.write_bytes(os.urandom(4 << 20))

        with pytest.raises(StoreError, match="no channel"):
            Channel(other)
        with pytest.raises(StoreError, match="cannot be created"):
            create_channel(other)
