"""After a death for want of memory the next process takes its budget as smaller, and gets through."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
SCRIPT = """
import os, torch, holdwater
from holdwater.process.restart_context import RestartContext
model = torch.nn.Linear(4, 1)
holdwater.resumable("model", model)
print("relief", RestartContext.taken().out_of_memory_restarts, flush=True)
for step in holdwater.steps(40):
    model(torch.ones(2, 4)).sum().backward()
    if step == 20 and not os.path.exists("died"):
        open("died", "w")
        BREAK
print("trained")
"""


UNFLUSHED = """
import atexit, sys, torch, holdwater
model = torch.nn.Linear(4, 1)
holdwater.resumable("model", model)
log = open("log.txt", "a")
atexit.register(lambda: print("farewell", file=log))
for step in holdwater.steps(30):
    model(torch.ones(2, 4)).sum().backward()
    print(step, file=log)
END
"""


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A memory control group of 1.5 GB, where this machine lets us make one."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    group = (root / "memory" if old else root) / f"holdwater-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text("1500000000")
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group
    group.rmdir()


class TestEnds:
    """A forked process ends as a program does, though its memory is not taken apart."""

    @pytest.mark.parametrize(
        ("end", "code", "last"),
        [
            ("", 0, ""),
            ("sys.exit(7)", 7, ""),
            ("sys.exit('no more')", 1, "no more"),
            ("raise ValueError('a bug')", 1, "ValueError: a bug"),
        ],
    )
    def test_what_files_hold_back_is_written(
        self, holdwater: Run, tmp_path: Path, end: str, code: int, last: str
    ) -> None:
        """Replaced every 10 steps, then done; `atexit` is heeded each time, and the exit code is the script's."""
        (tmp_path / "train.py").write_text(UNFLUSHED.replace("END", end))
        command = ("run", "--supervise", "--max-restarts", "0", "--reload-interval", "10", "--out", "run")

        done = holdwater(*command, "train.py")

        lines = (tmp_path / "log.txt").read_text().splitlines()
        assert [line for line in lines if line != "farewell"] == [str(step) for step in range(30)]
        assert lines.count("farewell") == 3
        assert done.returncode == code, done.stderr
        assert last in done.stderr


class TestRelief:
    """A lack of memory is told from other deaths, and answered."""

    @pytest.mark.parametrize(
        ("breaks", "reliefs"),
        [("raise MemoryError('no room')", [0, 1]), ("raise ValueError('a bug')", [0, 0])],
    )
    def test_an_exception_counts_by_its_kind(
        self, holdwater: Run, tmp_path: Path, breaks: str, reliefs: list[int]
    ) -> None:
        """A lack of memory asks for relief; a bug does not."""
        (tmp_path / "train.py").write_text(SCRIPT.replace("BREAK", breaks))

        done = holdwater("run", "--supervise", "--out", "run", "train.py")

        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [*(f"relief {number}" for number in reliefs), "trained"]

    def test_a_kill_by_the_kernel_asks_for_relief(self, tmp_path: Path, small_group: Path) -> None:
        """The script takes 4 GB at once under a limit of 1.5 GB."""
        (tmp_path / "train.py").write_text(SCRIPT.replace("BREAK", "kept = bytearray(4_000_000_000)"))
        command = [PROGRAM, "run", "--supervise", "--out", "run", "--json", "v.json", "train.py"]

        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            preexec_fn=lambda: (small_group / "cgroup.procs").write_text(str(os.getpid())),
        )  # fmt: skip

        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["relief 0", "relief 1", "trained"]
        assert "it ended with SIGKILL after step 20, for memory was short" in done.stderr
        assert json.loads((tmp_path / "v.json").read_text())["steps"] == 40
