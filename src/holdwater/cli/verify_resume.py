"""`holdwater verify-resume`: prove that a run which is interrupted learns the same, to the bit."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.cli.checks import check_writable
from holdwater.cli.outputs import NamedFiles, Outputs, difference
from holdwater.errors import CheckpointError, ConfigError, HoldwaterError
from holdwater.process.restart_context import NOT_REPLACED, SEED_VARIABLE, drawn_seed
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
        "every tensor of their checkpoints, bit by bit, what a script prints and the files that it names, and "
        "name the first difference. Where there is one, a second straight run shows whether the training itself "
        "is reproducible.",
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
    runs = _Runs(words, place, every)
    straight = runs.run("straight", interrupted=False)
    runs.keep_threads(straight.out)
    interrupted = runs.run("interrupted", interrupted=True)
    result: dict[str, Any] = {
        "exact": False, "steps": [], "tensors": 0, "reproducible": True, "difference": None
    }  # fmt: skip
    if interrupted.refusal is not None:
        return result | {"text": f"not verified, for the process is not replaced: {interrupted.refusal}"}
    comparison = _compare(straight.out, interrupted.out)
    result |= {"steps": list(comparison.steps), "tensors": comparison.tensors}
    found, printed = comparison.difference, difference(straight.outputs, interrupted.outputs)
    if found is None and printed is None:
        return result | {"exact": True, "text": _exact(comparison, straight, interrupted)}
    again = runs.run("straight-again", interrupted=False)
    if found is None:
        printed = difference(straight.outputs, interrupted.outputs, again.outputs)
        if printed is None:
            more = "; left out: what two straight runs print or write differently as well"
            return result | {"exact": True, "text": _exact(comparison, straight, interrupted) + more}
        result["difference"] = {"step": comparison.steps[-1], "what": printed, "how": "the output differs"}
        result["reproducible"] = difference(straight.outputs, again.outputs) is None
        return result | {
            "text": f"not exact: {printed}; the registered tensors agree, so something is not registered"
        }
    result["difference"] = {"step": found.step, "what": found.what, "how": found.how}
    result["reproducible"] = _compare(straight.out, again.out).difference is None
    why = (
        "two straight runs agree, so it is the interruption that is not exact"
        if result["reproducible"]
        else "two straight runs differ as well, so the training itself is not reproducible"
    )
    return result | {"text": f"not exact: first at step {found.step}, {found.what}: {found.how}; {why}"}


def _exact(comparison: StateComparison, *runs: "_VerifiedRun") -> str:
    """What was compared and agrees, and what could not be compared."""
    steps = ", ".join(map(str, comparison.steps))
    text = f"exact: {comparison.tensors} tensors of the checkpoints of steps {steps} agree to the bit"
    outputs = runs[0].outputs
    if runs[0].is_script:
        files = f" and the files {', '.join(sorted(outputs.files))}" if outputs.files else ""
        text += f", and so do {len(outputs.lines)} lines of output{files}"
    if comparison.unseeded:
        text += f" (left out, for the script does not seed them: random states {', '.join(comparison.unseeded)})"
    in_place = sorted({name for one in runs for name in one.outputs.in_place})
    if in_place:
        text += f" (not compared, for they were there before: {', '.join(in_place)})"
    return text


@dataclass(frozen=True, slots=True)
class _VerifiedRun:
    """One run, and what it has left."""

    out: Path
    outputs: Outputs
    is_script: bool
    refusal: str | None
    """Why its process was not replaced."""


class _Runs:
    """Runs of one configuration."""

    def __init__(self, words: list[str], place: Path, every: int) -> None:
        """Prepare.

        Args:
            words: `train` or `run`, and its arguments.
            place: For their folders.
            every: Steps between two checkpoints, and two interruptions.
        """
        self._words, self._place, self._every = words, place, every
        self._is_script = words[0] == "run"
        self._files = NamedFiles(_script(words[1:]) if self._is_script else [], Path.cwd())
        self._environment = os.environ | {SEED_VARIABLE: str(drawn_seed())}

    def keep_threads(self, run: Path) -> None:
        """Let later runs of `train` use as many threads as a first one, which may have measured them.

        Args:
            run: Its folder.
        """
        newest = CheckpointFolder(run / "checkpoints").newest(lambda _: None)
        if not self._is_script and newest is not None:
            self._words = [*self._words, "--threads", str(newest.state["exactness"]["threads"])]

    def run(self, name: str, *, interrupted: bool) -> _VerifiedRun:
        """Run once.

        Args:
            name: Of its folder.
            interrupted: Whether its process is replaced every so many steps.

        Raises:
            HoldwaterError: The run failed.
        """
        out = self._place / name
        flags = ["--out", str(out), "--checkpoint-interval", str(self._every), "--keep-checkpoints", "100000"]
        flags += ["--reload-interval", str(self._every)] if interrupted else []
        rest = self._words[1:]
        command = ["run", "--supervise", *flags, *rest] if self._is_script else ["train", *rest, *flags]
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "holdwater", *command],
            capture_output=True, text=True, check=False, env=self._environment,
        )  # fmt: skip
        if done.returncode:
            raise HoldwaterError(
                f"`holdwater {' '.join(command)}` ended with {done.returncode}:\n{done.stderr.strip()}"
            )
        files, in_place = self._files.take(self._place / f"{name}-files")
        lines = tuple(done.stdout.splitlines()) if self._is_script else ()
        refusal = done.stderr.partition(NOT_REPLACED)[2].partition("\n")[0] or None
        return _VerifiedRun(out, Outputs(lines, files, in_place), self._is_script, refusal)


def _script(words: list[str]) -> list[str]:
    """The script and its arguments, without the flags before it."""
    at = next((number for number, word in enumerate(words) if Path(word).is_file()), None)
    return [] if at is None else words[at:]


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
