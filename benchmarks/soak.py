"""Random faults in many real runs: does each end exact, and is nothing left behind?

Every other run is `holdwater train`, the others a script with a loader under `holdwater run --supervise`. Faults:
`kill -9` of the training process, of a loader's worker, of the fork server and of the supervisor (which is then
started again with `--resume`), SIGSTOP for up to 30 s, a clock that jumps by up to a year either way (as Python
sees it), the folder of checkpoints removed, the disk full and read-only (where a file system of our own can be
mounted: root on Linux). After a supervisor's death its processes must go within 10 s.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from safetensors.numpy import load_file

from recording import Bar, record

STEPS, SCRIPT_STEPS = 6000, 3000
SCRIPT = Path(__file__).parent / "programs" / "loader_run.py"
CLOCK = """
import os, time
wall, place = time.time, os.environ["SOAK_CLOCK"]
def jumping():
    try:
        with open(place) as file:
            return wall() + float(file.read() or 0)
    except (OSError, ValueError):
        return wall()
time.time = jumping
"""
"""A `sitecustomize` that lets a file move the wall clock of Python's processes."""
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
COMMAND = (
    *(PROGRAM, "train", "--preset", "tiny", "--train-seq-length", "16", "--steps", str(STEPS), "--threads", "1"),
    *("--checkpoint-interval", "50", "--eval-interval", "1000", "--eval-batches", "2", "--sample-length", "0"),
    *("--max-memory", "4GB", "--reload-interval", "500", "--max-restarts", "100000"),
)
SCRIPT_COMMAND = (
    *(PROGRAM, "run", "--supervise", "--checkpoint-interval", "100", "--reload-interval", "400"),
    *("--max-memory", "4GB", "--max-restarts", "100000", "--quiet"),
)
KINDS = (
    "trainer",
    "trainer",
    "server",
    "supervisor",
    "stopped",
    "checkpoints removed",
    "disk full",
    "read-only",
    "worker",
    "worker",
    "clock",
)


def command(*, of_script: bool, out: str) -> list[str]:
    """What is run, in which folder."""
    return [*(SCRIPT_COMMAND if of_script else COMMAND), "--out", out]


def words(*, of_script: bool) -> list[str]:
    """What stands behind the flags."""
    return [str(SCRIPT), str(SCRIPT_STEPS)] if of_script else []


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a run's last checkpoint."""
    folder = max((run / "checkpoints").glob("step-*"))
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Soak:
    """One run after another, with faults."""

    def __init__(self, place: Path, clock: Path, dice: random.Random) -> None:
        self.place, self.clock, self.dice = place, clock, dice
        self._of_script = False
        (clock / "sitecustomize.py").write_text(CLOCK)
        self.counts: Counter[str] = Counter()
        self.exact = self.inexact = 0
        self.slowest_end = 0.0
        self.problems: list[str] = []
        self.mounted = self._mount()
        self._runs = 0

    def _mount(self) -> bool:
        """Mount a file system of 64 MiB for the runs; False where that is not allowed."""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.place)],  # noqa: S607 - from the path
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def unmount(self) -> None:
        """Give it back."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)  # noqa: S607

    def run(self, faults: int, straight: Mapping[bool, dict[str, bytes]]) -> None:
        """Run with faults until one run has ended, or no fault is left; then let it end."""
        self._runs += 1
        self._of_script = self._runs % 2 == 0
        out = self.place / f"run-{self._runs}"
        process = self._start(out)
        while process.poll() != 0 or not list((out / "checkpoints").glob("step-*")):
            if process.poll() is not None:  # stopped on purpose, without a supervisor, or robbed at the very end
                process = self._start(out)
            time.sleep(self.dice.uniform(0.3, 1.5))
            if sum(self.counts.values()) < faults and process.poll() is None:
                self._fault(process, out)
        agree = tensors(out) == straight[self._of_script]
        self.exact += agree
        self.inexact += not agree
        if not agree:
            self.problems.append(f"{out.name} differs")
        left = [other.pid for other in processes_of(self.place)]
        if left:
            self.problems.append(f"processes left: {left}")
        shutil.rmtree(out)

    def _start(self, out: Path) -> subprocess.Popen[bytes]:
        """Start the supervisor, or start it again."""
        environment = os.environ | {"SOAK_CLOCK": str(self.clock / "clock"), "PYTHONPATH": str(self.clock)}
        return subprocess.Popen(
            [*command(of_script=self._of_script, out=out.name), "--resume", *words(of_script=self._of_script)],
            cwd=self.place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _fault(self, process: "subprocess.Popen[bytes]", out: Path) -> None:
        """Do one harm."""
        kind = self.dice.choice(KINDS)
        if kind in {"disk full", "read-only"} and not self.mounted:
            return
        try:
            servers = psutil.Process(process.pid).children()
            trainers = [child for server in servers for child in server.children()]
            if not trainers or (kind == "worker" and not trainers[0].children()):
                return
            self._harm(kind, process, trainers[0], servers[0], out)
        except (psutil.Error, OSError):
            return
        self.counts[kind] += 1

    def _harm(
        self,
        kind: str,
        process: "subprocess.Popen[bytes]",
        trainer: psutil.Process,
        server: psutil.Process,
        out: Path,
    ) -> None:
        """Do it."""
        harms: dict[str, Callable[[], object]] = {
            "trainer": trainer.kill,
            "worker": lambda: trainer.children()[0].kill(),  # noqa: PLW0108 - only then is there one
            "server": server.kill,
            "supervisor": lambda: self._kill_supervisor(process),
            "stopped": lambda: self._stop(trainer),
            "clock": lambda: (self.clock / "clock").write_text(str(self.dice.uniform(-3e7, 3e7))),
            "checkpoints removed": lambda: shutil.rmtree(out / "checkpoints", ignore_errors=True),
            "disk full": self._fill,
            "read-only": self._forbid,
        }
        harms[kind]()

    def _stop(self, trainer: psutil.Process) -> None:
        """Stop a process for a while."""
        trainer.suspend()
        time.sleep(self.dice.choice([0.5, 1, 3, 3, 30]))
        trainer.resume()

    def _fill(self) -> None:
        """Fill the disk for a second."""
        filler = self.place / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(64 << 20))
        time.sleep(1)
        filler.unlink()

    def _forbid(self) -> None:
        """Forbid writing for a second."""
        self._remount("ro")
        time.sleep(1)
        self._remount("rw")

    def _remount(self, how: str) -> None:
        """Make the file system read-only, or writable again."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=False, capture_output=True)  # noqa: S607

    def _kill_supervisor(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill it, and see how long its processes stay."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        while processes_of(self.place) and time.monotonic() - began < 12:
            time.sleep(0.02)
        seconds = time.monotonic() - began
        self.slowest_end = max(self.slowest_end, seconds)
        if seconds > 10:
            self.problems.append(f"processes were there {seconds:.1f} s after their supervisor's death")


def main() -> bool:
    """Measure, print and record; return whether every bar was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as calm:
        straight = {}
        for of_script in (False, True):
            line = [*command(of_script=of_script, out=str(of_script)), *words(of_script=of_script)]
            subprocess.run(line, cwd=calm, check=True, capture_output=True)
            straight[of_script] = tensors(Path(calm) / str(of_script))
        soak = Soak(Path(folder), Path(calm), random.Random(options.seed))  # noqa: S311 - no secret
        try:
            while sum(soak.counts.values()) < options.faults:
                soak.run(options.faults, straight)
                print(dict(soak.counts), soak.exact, soak.problems, flush=True)
        finally:
            for process in processes_of(Path(folder)):
                process.kill()
            soak.unmount()
    faults = sum(soak.counts.values())
    bars = {
        f"runs with {faults} faults that end exact": Bar(
            f"{soak.exact} of {soak.exact + soak.inexact}", "all", soak.inexact == 0
        ),
        "processes gone after their supervisor's death, slowest": Bar(
            f"{soak.slowest_end:.1f} s", "at most 10 s", soak.slowest_end <= 10
        ),
        "left behind": Bar("; ".join(soak.problems) or "nothing", "nothing", not soak.problems),
    }
    return record("soak", bars, faults=dict(soak.counts))


if __name__ == "__main__":
    sys.exit(not main())
