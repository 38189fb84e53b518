"""Checkpoints: whole or absent, checked before they are used, kept to the newest and the best."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdwater.errors import CheckpointError
from holdwater.store.checkpoints import MANIFEST, CheckpointFolder, read_checkpoint


def write(folder: CheckpointFolder, step: int, *, best: bool = False) -> Path:
    """Write a checkpoint of two small files."""
    files: dict[str, Callable[[Path], None]] = {
        "model.bin": lambda path: _put(path, bytes([step % 256]) * 1000),
        "random.bin": lambda path: _put(path, b"r" * 100),
    }
    return folder.write(step, files, {"position": step}, best=best)


def _put(path: Path, content: bytes) -> None:
    """Write bytes."""
    path.write_bytes(content)


def steps_in(folder: CheckpointFolder) -> list[int]:
    """The steps whose checkpoints are there."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.folder.glob("step-*"))


def truncate(checkpoint: Path) -> None:
    """Cut a file short."""
    (checkpoint / "model.bin").write_bytes(b"\x02" * 500)


def flip_a_bit(checkpoint: Path) -> None:
    """Change one bit, not the size."""
    content = bytearray((checkpoint / "model.bin").read_bytes())
    content[500] ^= 1
    (checkpoint / "model.bin").write_bytes(content)


def empty(checkpoint: Path) -> None:
    """Leave the folder, take everything in it away."""
    for path in checkpoint.iterdir():
        path.unlink()


def lose_a_file(checkpoint: Path) -> None:
    """Take one file away."""
    (checkpoint / "random.bin").unlink()


def edit_the_manifest(checkpoint: Path) -> None:
    """Change the state by hand."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["state"]["position"] = 99
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def break_the_manifest(checkpoint: Path) -> None:
    """Cut the manifest short."""
    (checkpoint / MANIFEST).write_text((checkpoint / MANIFEST).read_text()[:40])


def open_files_in(folder: Path) -> list[str]:
    """What this process has open there, removed files included."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to see open files in")
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(folder))]


class TestCheckpointFolder:
    """Writes, finds and prunes."""

    def test_returns_what_was_written(self, tmp_path: Path) -> None:
        """Step, state and files."""
        folder = CheckpointFolder(tmp_path)
        write(folder, 400)

        checkpoint = folder.newest(warn=pytest.fail)

        assert checkpoint is not None
        assert (checkpoint.step, checkpoint.state) == (400, {"position": 400})
        assert checkpoint.folder == tmp_path / "step-00000400"

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (truncate, "500 bytes instead of 1000"),
            (flip_a_bit, "another checksum"),
            (empty, "no manifest.json"),
            (lose_a_file, "random.bin"),
            (edit_the_manifest, "altered"),
            (break_the_manifest, "cannot be read"),
        ],
    )
    def test_passes_over_a_damaged_one_with_a_warning(
        self, tmp_path: Path, damage: Callable[[Path], None], words: str
    ) -> None:
        """A damaged newest checkpoint never stops a resume from an older one."""
        folder = CheckpointFolder(tmp_path)
        write(folder, 1)
        damage(write(folder, 2))
        warnings: list[str] = []

        checkpoint = folder.newest(warnings.append)

        assert checkpoint is not None
        assert checkpoint.step == 1
        assert len(warnings) == 1
        assert words in warnings[0]
        assert "is skipped" in warnings[0]

    def test_does_not_even_read_what_is_no_newer_than_asked_for(self, tmp_path: Path) -> None:
        """The sums of a large one take seconds: a process that goes on from memory has no use for it."""
        checkpoints = CheckpointFolder(tmp_path)
        warnings: list[str] = []
        write(checkpoints, 5)
        folder = write(checkpoints, 9)
        flip_a_bit(folder)

        assert checkpoints.newest(warnings.append, after=9) is None
        assert CheckpointFolder(write(CheckpointFolder(tmp_path / "new"), 0).parent).newest(print, after=0) is None
        assert not warnings
        newest = checkpoints.newest(warnings.append, after=4)
        assert newest is not None
        assert newest.step == 5
        assert len(warnings) == 1

    def test_finds_nothing_in_an_empty_folder(self, tmp_path: Path) -> None:
        """None, and no warning."""
        assert CheckpointFolder(tmp_path / "none").newest(warn=pytest.fail) is None

    def test_keeps_the_newest_and_the_best(self, tmp_path: Path) -> None:
        """Two newest, and the one with the lowest loss."""
        folder = CheckpointFolder(tmp_path, keep=2)
        for step in range(1, 7):
            write(folder, step, best=step == 2)

        assert steps_in(folder) == [2, 5, 6]

    def test_a_failed_write_leaves_the_older_ones_untouched(self, tmp_path: Path) -> None:
        """The message carries the reason; nothing half-written stays."""
        folder = CheckpointFolder(tmp_path, keep=1)
        write(folder, 1)

        def fail(path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        with pytest.raises(CheckpointError, match="No space left on device"):
            folder.write(2, {"model.bin": fail}, {}, best=False)

        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        read_checkpoint(tmp_path / "step-00000001")

    def test_sweeps_what_a_killed_writer_left(self, tmp_path: Path) -> None:
        """Half a checkpoint of a process that died is removed by the next one."""
        folder = CheckpointFolder(tmp_path)
        (tmp_path / ".writing-step-00000001-99").mkdir()
        write(folder, 2)

        assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]

    def test_never_removes_the_only_whole_one(self, tmp_path: Path) -> None:
        """A damaged folder with a higher number counts for nothing, and what was just written stays."""
        folder = CheckpointFolder(tmp_path, keep=1)
        write(folder, 400)
        empty(write(folder, 500))
        write(folder, 450)

        checkpoint = folder.newest(warn=lambda _: None)

        assert checkpoint is not None
        assert checkpoint.step == 450

    def test_puts_back_what_a_killed_replacement_left(self, tmp_path: Path) -> None:
        """Killed between the two renames of a step that was written again."""
        folder = CheckpointFolder(tmp_path, keep=1)
        write(folder, 3).rename(tmp_path / ".replaced-step-00000003")

        checkpoint = folder.newest(warn=pytest.fail)

        assert checkpoint is not None
        assert checkpoint.step == 3

    def test_writes_the_same_step_again(self, tmp_path: Path) -> None:
        """A resumed run comes by the same step, and replaces it."""
        folder = CheckpointFolder(tmp_path)
        flip_a_bit(write(folder, 3))
        write(folder, 3)

        read_checkpoint(tmp_path / "step-00000003")
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]

    def test_leaves_no_file_open(self, tmp_path: Path) -> None:
        """A run writes thousands of checkpoints."""
        folder = CheckpointFolder(tmp_path)
        write(folder, 1)
        before = open_files_in(tmp_path)
        write(folder, 2)

        assert (before, open_files_in(tmp_path)) == ([], [])
