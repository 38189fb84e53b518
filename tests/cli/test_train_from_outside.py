"""A training run from outside: read while it goes on, and interrupted before it has begun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from holdwater.errors import StoreError
from holdwater.store.history import read_history

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = (
    *(str(Path(sys.executable).with_name("holdwater")), "train", "--preset", "tiny", "--train-seq-length", "16"),
    *("--eval-batches", "2", "--sample-length", "8", "--threads", "1", "--max-memory", "4GB", "--steps", "100000"),
)
"""A training run that goes on for minutes."""


def newest_step(run: Path) -> int:
    """The last step of a run's history; 0 where there is none yet."""
    try:
        return int(max(read_history(run).samples.last_step.tolist(), default=0))
    except StoreError:
        return 0


def wait_for_step(run: Path, *, after: int) -> None:
    """Wait until a run's history has come beyond a step, for a minute at most."""
    until = time.monotonic() + 60
    while newest_step(run) <= after and time.monotonic() < until:
        time.sleep(0.2)


def test_the_run_can_be_read_while_it_goes_on(holdwater: Run, text_file: Path, tmp_path: Path) -> None:
    """`holdwater report` on a living run, twice: it has made more steps meanwhile."""
    seen: list[int] = []
    with subprocess.Popen(
        [*COMMAND, "--data", str(text_file), "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        try:
            for _ in range(2):
                wait_for_step(tmp_path / "run", after=max(seen, default=10))
                done = holdwater("report", "run")
                seen.append(newest_step(tmp_path / "run"))
                assert done.returncode == 0, done.stderr
                assert "peak resident memory" in done.stdout
            assert run.poll() is None
        finally:
            run.kill()

    assert 10 < seen[0] < seen[1]


def test_an_interrupt_before_anything_has_begun_leaves_no_traceback(text_file: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of the terminal; imports take seconds."""
    with subprocess.Popen(
        [*COMMAND, "--data", str(text_file), "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        time.sleep(1.0)
        os.killpg(run.pid, signal.SIGINT)
        said = run.communicate(timeout=60)[1]

    assert run.returncode != 0
    assert "Traceback" not in said


def test_an_interrupt_that_comes_twice_leaves_no_traceback() -> None:
    """The second one while the first is told."""
    script = (
        "import os, signal, sys\n"
        "from holdwater.cli import main as command\n"
        "class Interrupted:\n"
        "    def write(self, text):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        return sys.__stderr__.write(text)\n"
        "    def flush(self):\n"
        "        sys.__stderr__.flush()\n"
        "def interrupted():\n"
        "    raise KeyboardInterrupt\n"
        "command.main, sys.stderr = interrupted, Interrupted()\n"
        "command.run_and_exit()\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (75, "holdwater: stopped\n")
