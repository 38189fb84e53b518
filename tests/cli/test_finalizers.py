"""What completes itself in `__del__` at the end of a program is complete under a supervisor too."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WRITER = """
import os

class Writer:
    def __init__(self, name):
        self.name, self.rows = name, []

    def __del__(self, opened=open):
        with opened(f"{self.name}-{os.getpid() if 'PIDS' in os.environ else 0}.txt", "w") as file:
            file.write(f"{len(self.rows)} rows")
"""
SCRIPT = """
import atexit, sys, threading, time
from writer import Writer
import other

def helper():
    return log

log = Writer("main")
loop = [log]; loop.append(loop)
atexit.register(lambda: print("exit handler first", log.rows))
log.rows += [1, 2, 3]
other.log.rows += [1]
"""
OTHER = "import sys\nfrom writer import Writer\nlog = Writer('other')\nsys.kept = sys.modules[__name__]\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A script that imports two modules of its own."""
    (tmp_path / "writer.py").write_text(WRITER)
    (tmp_path / "other.py").write_text(OTHER)
    return tmp_path


def written(folder: Path) -> dict[str, str]:
    """What the writers have left; removed."""
    found = {path.name: path.read_text() for path in folder.glob("*.txt")}
    for name in found:
        (folder / name).unlink()
    return found


@pytest.mark.parametrize("end", ["", "sys.exit(7)", "raise ValueError('as it is')", "threading.excepthook = None"])
def test_as_plain_python_would(holdwater: Run, files: Path, end: str) -> None:
    """At the end of the script, at an exit or an exception; in a module that something else holds, too."""
    (files / "script.py").write_text(SCRIPT + end + "\n")
    bare = subprocess.run([sys.executable, "script.py"], cwd=files, capture_output=True, text=True, check=False)
    expected = written(files)

    done = holdwater("run", "--supervise", "--quiet", "--out", "run", "script.py")

    assert expected == {"main-0.txt": "3 rows", "other-0.txt": "1 rows"}
    assert written(files) == expected
    assert (done.returncode, done.stdout) == (bare.returncode, bare.stdout), done.stderr


def test_a_thread_that_still_runs_keeps_its_names(holdwater: Run, files: Path) -> None:
    """A daemon thread, which plain Python would stop: it must not fail on names that are gone."""
    thread = (
        "def work():\n    while True: other.log.rows[:1]\nthreading.Thread(target=work, daemon=True).start()\n"
    )
    (files / "script.py").write_text(SCRIPT + thread + "time.sleep(0.2)\n")

    done = holdwater("run", "--supervise", "--quiet", "--out", "run", "script.py")

    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_in_each_process_of_a_run(holdwater: Run, files: Path) -> None:
    """A process that is replaced completes what it has written."""
    (files / "script.py").write_text(
        "import torch, holdwater\nfrom writer import Writer\nlog, state = Writer('main'), {'n': 0}\n"
        "holdwater.resumable('state', state)\nholdwater.resumable('log', None)\n"
        "for step in holdwater.steps(9):\n    log.rows.append(step)\n"
    )

    done = holdwater(
        "run", "--supervise", "--quiet", "--reload-interval", "3", "--out", "run", "script.py",
        env=os.environ | {"PIDS": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert list(written(files).values()) == ["3 rows"] * 3
