"""Random faults around many small runs: is a script harmed by being watched, and is anything left behind?

Each combination runs `programs/fault_run.py` bare and under `holdwater run`, about every other one with
`--supervise`. Faults: 64 descriptors; a small or read-only $TMPDIR; a small or full /dev/shm; a run folder that is
read-only, or is filled or removed; signals to the process, to the command or to the group, which the script
handles or not, or its caller ignores. Both runs must have the same exit code, output and files. Nothing may stay:
no process, no file in /dev/shm or $TMPDIR. A run folder that is read-only from the start must be refused by name.

File systems are mounted that nobody else sees, so it needs root on Linux.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from recording import Bar, record

PROGRAM = str(Path(sys.executable).with_name("holdwater"))
SCRIPT = str(Path(__file__).parent / "programs" / "fault_run.py")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
TARGETS = ("process", "command", "group")
TMP = (None, None, "size=16m", "size=64k", "ro")
SHARED_MEMORY = ("size=64m", "size=64m", "size=1m", "size=4k")
RUN = (None, None, None, "removed", "read-only")
FAULTS = ("few descriptors", "tmp", "run", "fills", "signal", "supervised")
DESCRIPTORS = 64
LONGEST = 90
"""Seconds of one run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run has done."""

    code: int
    output: str
    errors: str
    """The last line of standard error that is not holdwater's."""
    files: dict[str, bytes]
    said: str
    """All of standard error."""


def draw(dice: random.Random) -> dict[str, Any]:
    """One combination."""
    kind = dice.choice(["plain", "plain", "plain", "tensors", "resumable"])
    name, how = dice.choice(SIGNALS), dice.choice(["handled", "handled", "leaves", "default", "ignored"])
    sent: list[str] = [name, dice.choice(TARGETS), how] if dice.random() < 0.6 else []
    if kind == "resumable" and sent and how in {"default", "leaves"}:
        sent[2] = "handled"  # such a script is ended in good order, or started again: as documented, unlike bare
    return {
        "kind": kind,
        "supervised": kind == "resumable" or dice.random() < 0.5,
        "reload": kind == "resumable" and dice.random() < 0.5,
        "few descriptors": dice.random() < 0.5,
        "tmp": dice.choice(TMP),
        "shm": dice.choice(SHARED_MEMORY),
        "run": dice.choice(RUN),
        "fills": [place for place in ("TMPDIR", "SHM", "RUN") if dice.random() < 0.25],
        "signal": sent,
        "exit": 0 if kind == "resumable" else dice.choice([0, 0, 0, 5]),
    }


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """Mount a file system of our own."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)  # noqa: S607 - from the path
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def run(plan: dict[str, Any], place: Path, command: list[str]) -> tuple[Ended, list[str]]:
    """Run a command with the faults of a plan; what it has done, and what it has left behind."""
    place.mkdir()
    work, tmp, out = (place / name for name in ("work", "tmp", "run"))
    work.mkdir()
    with ExitStack() as mounts:
        mounts.enter_context(mounted(Path("/dev/shm"), plan["shm"]))  # noqa: S108 - our own
        mounts.enter_context(mounted(tmp, plan["tmp"] or "size=64m"))
        mounts.enter_context(mounted(out, "ro" if plan["run"] == "read-only" else "size=8m"))
        environment = os.environ | {"TMPDIR": str(tmp), "SHM": "/dev/shm", "RUN": str(out)}  # noqa: S108
        ended = _wait(plan, [*command, SCRIPT, json.dumps(plan)], work, environment)
        files = {path.name: path.read_bytes() for path in sorted(work.iterdir())}
        until = time.monotonic() + 5
        while (left := processes_of(work)) and time.monotonic() < until:
            time.sleep(0.05)
        names = [f"process {process.pid}" for process in left]
        for process in left:
            process.kill()
        for folder in (Path("/dev/shm"), tmp):  # noqa: S108
            names += [str(path) for path in folder.iterdir() if path.name not in {"fill", "torchinductor_root"}]
    return Ended(*ended[:3], files, ended[3]), names


def _wait(
    plan: dict[str, Any], command: list[str], work: Path, environment: dict[str, str]
) -> tuple[int, str, str, str]:
    """Start a command in a session of its own, and wait for its end."""

    def prepare() -> None:
        """In the child: few descriptors, and only that signal ignored that the plan says."""
        if plan["few descriptors"]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        ignored = plan["signal"][0] if plan["signal"] and plan["signal"][2] == "ignored" else ""
        for name in SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_IGN if name == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=prepare,  # noqa: PLW1509 - no other thread runs
    )  # fmt: skip
    try:
        output, said = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, said = process.communicate()
        output += f"killed after {LONGEST} s"
    lines = [line for line in said.splitlines() if not line.startswith("holdwater: ")]
    return process.returncode, output, "".join(lines[-1:]), said


def command_of(plan: dict[str, Any], out: Path) -> list[str]:
    """The command line of holdwater."""
    flags = ["--supervise"] if plan["supervised"] else []
    flags += ["--reload-interval", "20"] if plan["reload"] else []
    return [PROGRAM, "run", *flags, "--out", str(out)]


def compare(plan: dict[str, Any], place: Path) -> list[str]:
    """What differs between the bare run and the watched one, and what is left behind."""
    bare, _ = run(plan, place / "bare", [sys.executable])
    watched, left = run(plan, place / "watched", command_of(plan, place / "watched" / "run"))
    if plan["run"] == "read-only":
        refused = watched.code == 2 and not watched.output and "cannot be written" in watched.said
        return [*left, *([] if refused else ["not refused by name"])]
    differing = [
        f"{name}: {getattr(bare, name)!r} became {getattr(watched, name)!r}"
        for name in ("code", "output", "errors")
        if getattr(bare, name) != getattr(watched, name)
    ]
    differing += [] if bare.files == watched.files else ["files"]
    return differing + [f"left: {what}" for what in left]


def main() -> bool:
    """Measure, print and record; return whether every bar was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run one combination, by its number, and record nothing")
    options = parser.parse_args()
    if "SOAK_FAULTS" not in os.environ:
        os.environ["SOAK_FAULTS"] = "mounts are our own"
        os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])  # noqa: S606, S607 - from the path
    problems: dict[int, list[str]] = {}
    faults: Counter[str] = Counter()
    numbers = range(options.runs) if options.only is None else [options.only]
    for number in numbers:
        plan = draw(random.Random(f"{options.seed}-{number}"))  # noqa: S311 - no secret
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            found = compare(plan, Path(folder))
        faults.update(
            name for name in ("few descriptors", "tmp", "run", "fills", "signal", "supervised") if plan[name]
        )
        if found:
            problems[number] = found
            print(number, plan, *found, sep="\n    ", flush=True)
    if options.only is not None:
        return not problems
    bars = {
        f"of {options.runs} random combinations, unharmed and nothing left": Bar(
            f"{options.runs - len(problems)}", "all", not problems
        )
    }
    return record("soak_faults", bars, faults=dict(faults), problems=problems)


if __name__ == "__main__":
    sys.exit(not main())
