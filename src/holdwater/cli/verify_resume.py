"""`holdwater verify-resume`: prove that a run which is interrupted learns the same, to the bit."""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from holdwater.cli.checks import check_writable
from holdwater.errors import CheckpointError, ConfigError, HoldwaterError
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.store.compare import StateComparison, compare_runs

REFUTED = 1
"""The exit code if the two runs differ."""


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "verify-resume",
        help="run a configuration straight and interrupted, and compare the two bit by bit",
        description="Run a configuration twice: straight, and with its process replaced every few steps. Compare "
        "every tensor of their checkpoints, bit by bit, and name the first step and tensor that differ. Where "
        "they do, a second straight run shows whether the training itself is reproducible.",
        usage="holdwater verify-resume [OPTIONS] train [FLAGS ...]\n"
        "       holdwater verify-resume [OPTIONS] run SCRIPT [ARGS ...]",
    )
    parser.add_argument(
        "--every", type=int, default=50, metavar="N", help="replace the process every N steps (default: 50)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the runs here (default: removed)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="train|run ...", help="what to verify")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run both and compare; return 0 where they agree, 1 where they differ."""
    words = list(options.words)
    if not words or words[0] not in {"train", "run"}:
        raise ConfigError(
            "nothing to verify; write `holdwater verify-resume train --steps 200` or "
            "`holdwater verify-resume run SCRIPT`"
        )
    if options.every < 1:
        raise ConfigError(f"--every is {options.every}, but it counts steps; write 1 or more")
    for flag in ("--out", "--resume", "--reload-interval"):
        if words[0] == "train" and any(word == flag or word.startswith(f"{flag}=") for word in words):
            raise ConfigError(f"{flag} is set by verify-resume itself; leave it out")
    check_writable("--json", options.json)
    _end_what_was_started()
    with tempfile.TemporaryDirectory(prefix="holdwater-verify-") as folder:
        place = options.out or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        found = _verify(words, place, options.every)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found["text"])  # noqa: T201 - what a command is for
    return 0 if found["exact"] else REFUTED


def _end_what_was_started() -> None:
    """Let a signal that ends this process raise an exception, at which `subprocess` ends the run it waits for."""

    def leave(number: int, _frame: object) -> None:
        """End.

        Raises:
            SystemExit: With the exit code that a shell would report.
        """
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # what the caller ignores stays ignored
            signal.signal(number, leave)


def _verify(words: list[str], place: Path, every: int) -> dict[str, Any]:
    """Run straight and interrupted, and compare; the result as JSON, with a `text` for people."""
    straight = _run(words, place / "straight", every, interrupted=False)
    words = [*words, *_threads_of(straight, words)]
    interrupted = _run(words, place / "interrupted", every, interrupted=True)
    comparison = _compare(straight, interrupted)
    found = comparison.difference
    result: dict[str, Any] = {
        "exact": found is None,
        "steps": list(comparison.steps),
        "tensors": comparison.tensors,
        "reproducible": True,
        "difference": None,
    }
    if found is None:
        steps = ", ".join(map(str, comparison.steps))
        text = f"exact: {comparison.tensors} tensors of the checkpoints of steps {steps} agree to the bit"
        return result | {"text": text + _left_out(comparison)}
    result["difference"] = {"step": found.step, "what": found.what, "how": found.how}
    again = _run(words, place / "straight-again", every, interrupted=False)
    result["reproducible"] = _compare(straight, again).difference is None
    why = (
        "two straight runs agree, so it is the interruption that is not exact"
        if result["reproducible"]
        else "two straight runs differ as well, so the training itself is not reproducible"
    )
    return result | {"text": f"not exact: first at step {found.step}, {found.what}: {found.how}; {why}"}


def _threads_of(run: Path, words: list[str]) -> list[str]:
    """The flag that makes later runs of `train` use as many threads as a first one, which may have measured them.

    Args:
        run: The first.
        words: Its command.
    """
    newest = CheckpointFolder(run / "checkpoints").newest(lambda _: None)
    if words[0] != "train" or newest is None:
        return []
    return ["--threads", str(newest.state["exactness"]["threads"])]


def _left_out(comparison: StateComparison) -> str:
    """What was not compared, as text."""
    if not comparison.unseeded:
        return ""
    return f" (left out, for the script does not seed them: random states {', '.join(comparison.unseeded)})"


def _run(words: list[str], out: Path, every: int, *, interrupted: bool) -> Path:
    """Run once.

    Args:
        words: `train` or `run`, and its arguments.
        out: The folder of the run.
        every: Steps between two checkpoints, and two interruptions.
        interrupted: Whether its process is replaced every so many steps.

    Raises:
        HoldwaterError: The run failed.
    """
    flags = ["--out", str(out), "--checkpoint-interval", str(every), "--keep-checkpoints", "100000"]
    flags += ["--reload-interval", str(every)] if interrupted else []
    command = ["train", *words[1:], *flags] if words[0] == "train" else ["run", "--supervise", *flags, *words[1:]]
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "holdwater", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HoldwaterError(
            f"`holdwater {' '.join(command)}` ended with {done.returncode}:\n{done.stderr.strip()}"
        )
    return out


def _compare(one: Path, other: Path) -> StateComparison:
    """Compare two runs.

    Args:
        one: A folder.
        other: Another.

    Raises:
        ConfigError: There is nothing to compare.
    """
    try:
        return compare_runs(one, other)
    except CheckpointError as error:
        raise ConfigError(
            f"{error}; a script must register its state with holdwater.resumable and loop over holdwater.steps"
        ) from None
