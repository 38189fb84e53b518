"""A training that has itself watched: what is found, and what is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, signal, sys, time
import torch
from holdwater.frameworks.attached_session import AttachedSession

how, kept = sys.argv[1], []
weight = torch.nn.Parameter(torch.randn(8, 8))
session = AttachedSession()
for step in range(400):
    if how != "flat":
        kept.append(torch.zeros(50_000))
    weight.pow(2).sum().backward()
    session.step()
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
