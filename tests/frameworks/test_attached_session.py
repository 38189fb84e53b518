"""A training that has itself watched: what is found, and what is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, time
import torch
from holdwater.frameworks.attached_session import AttachedSession
from holdwater.observe.attached_run import WatchRequest

how, kept = sys.argv[1], []
weight = torch.nn.Parameter(torch.randn(8, 8))
session = AttachedSession(WatchRequest())
for step in range(400):
    if how != "flat":
        kept.append(torch.zeros(50_000))
    weight.pow(2).sum().backward()
    session.session.step()
    time.sleep(0.004)
    if how == "killed" and step == 300:
        os.kill(os.getpid(), signal.SIGKILL)
found = session.end()
print(found["verdict"])
"""


def run(how: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the script; it must leave nothing in its folder for temporary files."""
    script, temporary = folder / "train.py", folder / "tmp"
    script.write_text(SCRIPT)
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), how], capture_output=True, text=True, timeout=120, check=False, cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 10  # the watcher of a process that was killed ends after it
    while list(temporary.glob("holdwater-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(temporary.glob("holdwater-*")) == []
    return done


def test_ignores_a_healthy_training(tmp_path: Path) -> None:
    """Nothing is said."""
    done = run("flat", tmp_path)

    assert (done.returncode, done.stdout.strip() in {"flat", "bounded", "warming"}, done.stderr) == (
        0,
        True,
        "",
    )


def test_a_training_that_is_killed_leaves_its_findings(tmp_path: Path) -> None:
    """Nobody else could tell any more."""
    done = run("killed", tmp_path)

    assert done.returncode == -9
    assert "the process ended within its training, after 301 steps" in done.stderr
    assert "leak of host." in done.stderr


CHILDREN = """
import ctypes, os, sys
import psutil
from holdwater.frameworks.attached_session import AttachedSession
from holdwater.observe.attached_run import WatchRequest
from holdwater.probes.processes import descendants_of

if "adopts" in sys.argv:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as the first process of a container is
session = AttachedSession(WatchRequest())
print(len(psutil.Process().children()), len(descendants_of(psutil.Process())))
session.session.step()
print("verdict" in session.end())
"""


def children(folder: Path, *words: str) -> list[str]:
    """What a program says of its children, and of its judgement."""
    command = [sys.executable, "-c", CHILDREN, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=folder)
    return done.stdout.splitlines()


def test_the_watcher_is_no_child_of_what_it_watches(tmp_path: Path) -> None:
    """A program that waits for any child does not get ours."""
    assert children(tmp_path) == ["0 0", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt others")
def test_ignores_a_watcher_that_the_program_has_adopted(tmp_path: Path) -> None:
    """As the first process of a container does: it is a child then, but not counted as one of the run's."""
    assert children(tmp_path, "adopts") == ["1 0", "True"]
