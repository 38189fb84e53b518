"""Descriptors, disk space, shared memory and file locks that run out never harm a script."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("holdwater"))
Shell = Callable[[str, str], "subprocess.CompletedProcess[str]"]

RESUMABLE = """
import time
import torch
import holdwater
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(60):
    optimizer.zero_grad(); model(torch.randn(4, 4)).pow(2).mean().backward(); optimizer.step()
    time.sleep(0.01)  # the watcher looks every 50 ms
print(model.weight.flatten().tolist())
"""
FILLS_ITS_DISK = """
import os
import torch
torch.set_num_threads(1)
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(1000):
    optimizer.zero_grad(); model(torch.ones(8, 64)).mean().backward(); optimizer.step()
    if step == 100:
        try:
            with open(os.path.join(os.environ["TMPDIR"], "scratch"), "wb", buffering=0) as file:
                while True: file.write(b"x" * 4096)
        except OSError as error:
            print("handled:", error.strerror)
print("trained")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Write a script, and run a command of the shell in its folder; `$HW` is the installed command."""

    def run(script: str, command: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "s.py").write_text(textwrap.dedent(script), encoding="utf-8")
        environment = os.environ | {"HW": PROGRAM, "PY": sys.executable, "TMPDIR": str(tmp_path / "tmp")}
        (tmp_path / "tmp").mkdir(exist_ok=True)
        return subprocess.run(
            ["bash", "-c", command],  # noqa: S607 - from the path
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def mounts(tmp_path: Path) -> str:
    """What a command begins with to mount file systems that nobody else sees."""
    words = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=1m none {tmp_path}"]
    if shutil.which("unshare") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    return "unshare -m bash -c"


class TestDescriptors:
    """Everything that is opened for a process of a run is closed with it."""

    def test_many_processes_need_no_more_files_than_one(self, shell: Shell) -> None:
        """Twenty processes under a limit of 40 open files; the weights are those of a plain run."""
        bare = shell(RESUMABLE, "$PY s.py")

        done = shell(RESUMABLE, "ulimit -n 40; $HW run --quiet --supervise --reload-interval 3 --out run s.py")

        assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr

    def test_a_process_leaves_no_folder_while_the_run_goes_on(self, shell: Shell, tmp_path: Path) -> None:
        """The last process sees the folder of its own channel only; in the end there is none."""
        script = RESUMABLE + "import glob, os; print(len(glob.glob(os.environ['TMPDIR'] + '/holdwater-*')))\n"

        done = shell(script, "$HW run --quiet --supervise --reload-interval 20 --out run s.py")

        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1"), done.stderr
        assert not list((tmp_path / "tmp").glob("holdwater-*"))

    def test_a_script_that_uses_up_its_descriptors_is_still_observed(self, shell: Shell) -> None:
        """For a second no file can be opened in it; then its steps are read as before."""
        script = FILLS_ITS_DISK.partition("    if step")[0] + (
            "    if step == 100:\n"
            "        import time\n"
            "        files = []\n"
            "        try:\n"
            "            while True: files.append(open('/dev/null'))\n"
            "        except OSError as error: print(error.strerror)\n"
            "    if step == 700: files.clear()\n"
            "    if 100 < step < 700: time.sleep(0.001)\n"
        )

        done = shell(script, "ulimit -n 64; $HW run --out run s.py")

        assert (done.returncode, done.stdout) == (0, "Too many open files\n")
        assert "not observed" not in done.stderr
        assert "flat after 1,000 steps" in done.stderr


class TestFullDisk:
    """A full disk costs a part of the verdict at most."""

    def test_a_full_temporary_folder_does_not_end_the_script(self, shell: Shell, mounts: str) -> None:
        """It fills $TMPDIR itself, and handles that."""
        command = "mount -t tmpfs -o size=8m none $TMPDIR; $HW run --json v.json --out run s.py"

        done = shell(FILLS_ITS_DISK, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (0, "handled: No space left on device\ntrained\n"), done.stderr
        assert "flat after 1,000 steps" in done.stderr

    def test_the_same_without_a_full_folder(self, shell: Shell) -> None:
        """The twin, with space left."""
        script = FILLS_ITS_DISK.replace("while True: file.write", "file.write")

        done = shell(script, "$HW run --out run s.py")

        assert (done.returncode, done.stdout) == (0, "trained\n")

    @pytest.mark.parametrize("size", ["1m", "4k"])
    def test_without_room_in_the_temporary_folder_another_is_used(
        self, shell: Shell, mounts: str, size: str
    ) -> None:
        """From the first step on."""
        script = FILLS_ITS_DISK.partition("    if step")[0] + "print('trained')\n"
        command = f"mount -t tmpfs -o size={size} none $TMPDIR; $HW run --out run s.py"

        done = shell(script, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
        assert "flat after 1,000 steps" in done.stderr

    def test_a_run_folder_that_fills_up_costs_the_history(self, shell: Shell, mounts: str) -> None:
        """Just before the run is judged by its steps; the script's exit code is its own."""
        script = """
            import time, holdwater
            time.sleep(2)
            try:
                with open("run/fill", "wb", buffering=0) as file:
                    while True: file.write(bytes(512))
            except OSError: pass
            for step in range(100): holdwater.step()
            print("trained"); raise SystemExit(5)
        """
        command = "mkdir run; mount -t tmpfs -o size=1m none run; $HW run --out run s.py"

        done = shell(script, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (5, "trained\n"), done.stderr
        assert "Traceback" not in done.stderr

    def test_an_answer_that_cannot_be_written_is_missed_by_name(self, shell: Shell, mounts: str) -> None:
        """A leak is found; that the script could not say what it holds is an error of the verdict."""
        script = FILLS_ITS_DISK.replace("step == 100:", "step == 10:").replace(
            "for step in range(1000):", "kept = []\nfor step in range(400):\n    kept.append(torch.ones(50_000))"
        )
        command = (
            "mount -t tmpfs -o size=8m none $TMPDIR; $HW run --json v.json --out run s.py; code=$?; "
            "grep could.not.write v.json; exit $code"
        )

        done = shell(script, f"{mounts} '{command}'")

        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("handled: No space left on device\ntrained\n")
        assert "could not write" in done.stdout
        assert "host" in done.stderr
        assert "leak" in done.stderr

    @pytest.mark.parametrize("flags", ["--checkpoint-interval 10", "--reload-interval 10"])
    def test_a_checkpoint_that_finds_no_space_does_not_end_the_script(
        self, shell: Shell, mounts: str, flags: str
    ) -> None:
        """Neither one that is due, nor one for the next process; it is said once, and the weights are the same."""
        full = RESUMABLE.replace(
            "    optimizer.zero_grad()",
            "    if step == 5:\n"
            "        for place in ('run', '/dev/shm'):\n"
            "            try:\n"
            "                with open(place + '/fill', 'wb', buffering=0) as file:\n"
            "                    while True: file.write(bytes(512))\n"
            "            except OSError: pass\n"
            "    optimizer.zero_grad()",
        )
        command = (
            "mount -t tmpfs -o size=1m none /dev/shm; mkdir run; mount -t tmpfs -o size=1m none run; "
            f"$HW run --quiet --supervise {flags} --out run s.py"
        )

        done = shell(full, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (0, shell(RESUMABLE, "$PY s.py").stdout), done.stderr
        assert done.stderr.count("cannot be written: ") == 1

    @pytest.mark.parametrize("limit", ["size=64k", "size=64k,nr_inodes=2"])
    @pytest.mark.parametrize("flags", ["", "--supervise --reload-interval 20"])
    def test_a_folder_that_is_full_from_the_beginning_does_not_end_the_script(
        self, shell: Shell, mounts: str, flags: str, limit: str
    ) -> None:
        """There is no history, no lock and no checkpoint on disk; the processes go on from memory."""
        command = (
            f"mkdir run; mount -t tmpfs -o {limit} none run; cat /dev/zero > run/fill; "
            f"$HW run {flags} --out run s.py"
        )

        done = shell(RESUMABLE, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (0, shell(RESUMABLE, "$PY s.py").stdout), done.stderr
        assert "the run goes on without a history" in done.stderr
        assert ("the process was replaced 2 times" in done.stderr) == bool(flags)

    def test_a_folder_that_cannot_be_written_otherwise_is_a_mistake(self, shell: Shell) -> None:
        """The twin: the folder's name is that of a file."""
        done = shell(RESUMABLE, "touch run; $HW run --supervise --out run s.py")

        assert (done.returncode, done.stdout) == (2, "")
        assert "--out run cannot be written" in done.stderr


class TestFullSharedMemory:
    """Checkpoints that are meant for shared memory go elsewhere."""

    def test_they_go_to_the_temporary_folder(self, shell: Shell, mounts: str, tmp_path: Path) -> None:
        """The run is exact, the other place is named, and nothing stays there."""
        bare = shell(RESUMABLE, "$PY s.py")
        fill = "mount -t tmpfs -o size=1m none /dev/shm; head -c 2m /dev/zero > /dev/shm/fill 2>/dev/null"
        command = f"{fill}; $HW run --quiet --supervise --reload-interval 20 --out run s.py"

        done = shell(RESUMABLE, f"{mounts} '{command}'")

        assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr
        assert (
            f"no room for checkpoints in /dev/shm (No space left on device): they are written to {tmp_path}"
            in (done.stderr)
        )
        assert not list((tmp_path / "tmp").glob("holdwater-*"))

    def test_with_room_nothing_is_said(self, shell: Shell) -> None:
        """The twin."""
        done = shell(RESUMABLE, "$HW run --quiet --supervise --reload-interval 20 --out run s.py")

        assert (done.returncode, done.stderr) == (0, "")


class TestLocks:
    """A file system without locks."""

    def test_it_is_said_at_once_and_the_run_goes_on(self, shell: Shell) -> None:
        """`flock` fails with ENOLCK, as on some network file systems."""
        script = (
            "import errno, fcntl\n"
            "def flock(*_): raise OSError(errno.ENOLCK, 'No locks available')\n"
            "fcntl.flock = flock\n" + RESUMABLE
        )

        done = shell(script, "$HW run --quiet --supervise --out run s.py")

        assert (done.returncode, done.stdout) == (0, shell(RESUMABLE, "$PY s.py").stdout), done.stderr
        assert "run is on a file system without locks" in done.stderr
