"""Exact resume: `kill -9` at 50 random moments of a 2,000-step run, each compared with the undisturbed run.

Each trial kills one run at a random moment (every third inside the writing of a checkpoint), reads its
store, lets it go on to its end, and compares the bytes of every tensor of the last checkpoint.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from holdwater.errors import StoreError
from holdwater.store.history import read_history
from recording import Bar, record

STEPS = 2000
COMMAND = [
    str(Path(sys.executable).with_name("holdwater")),
    *("train", "--preset", "small", "--steps", str(STEPS), "--checkpoint-interval", "150"),
    *("--eval-interval", "500", "--sample-length", "0", "--max-memory", "4GB", "--threads", "1"),
]


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a run's last checkpoint."""
    folder = run / "checkpoints" / f"step-{STEPS:08}"
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def finish(run: Path, *flags: str) -> float:
    """Run to the end; return the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run([*COMMAND, "--out", str(run), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.monotonic() - began


def kill_at_a_random_moment(run: Path, *, span: float, while_writing: bool, dice: random.Random) -> bool:
    """Start a run and kill it; returns whether it was killed before its end."""
    process = subprocess.Popen(
        [*COMMAND, "--out", str(run), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + dice.uniform(0.25, 0.95) * span
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.005)
    while while_writing and process.poll() is None and not list((run / "checkpoints").glob(".writing-*")):
        time.sleep(0.0005)
    if while_writing:
        time.sleep(dice.uniform(0, 0.01))
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


def main(kills: int) -> bool:
    """Kill, resume, compare."""
    dice = random.Random(0)  # noqa: S311 - moments, not secrets
    exact = readable = killed = writing = 0
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight"
        span = finish(straight)
        expected = tensors(straight)
        while killed < kills:
            run = Path(folder) / f"run-{killed}"
            during = killed % 3 == 0
            if not kill_at_a_random_moment(run, span=span, while_writing=during, dice=dice):
                shutil.rmtree(run)
                continue
            killed += 1
            writing += bool(list((run / "checkpoints").glob(".writing-*")))
            readable += _readable(run)
            finish(run, "--resume")
            exact += tensors(run) == expected
            print(f"{killed} killed, {exact} exact, {readable} stores readable", flush=True)
            shutil.rmtree(run)
    bars = {
        f"`kill -9` at {killed} random moments, resumed: every tensor identical": Bar(
            f"{exact} of {killed}", "all", exact == killed
        ),
        "the history readable after each": Bar(f"{readable} of {killed}", "all", readable == killed),
    }
    return record("kill_and_resume", bars, killed_while_writing_a_checkpoint=writing, tensors=len(expected))


def _readable(run: Path) -> bool:
    """Whether the store can be read; a run that was killed before it made one has none to lose."""
    if not (run / "rank-0.db").exists():
        return True
    try:
        read_history(run)
    except StoreError as error:
        # killed between making the file and making its tables: nothing was recorded yet
        print(error)
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    sys.exit(not main(parser.parse_args().kills))
