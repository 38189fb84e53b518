"""`holdwater run`: run an unchanged training script, and say what its memory did."""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdwater.budget import Budget, find_budget, give_budget
from holdwater.cli.checks import LEAK_FOUND, check_writable, free_run_folder
from holdwater.detectors.parts import split_resident
from holdwater.errors import ConfigError
from holdwater.guard.account import Account, Overhead
from holdwater.guard.summary import summarise
from holdwater.probes.machine import read_machine
from holdwater.probes.outside import Outside
from holdwater.store.run_store import RunStore
from holdwater.supervise.channel import Channel, create_channel
from holdwater.supervise.process import ScriptProcess, die_as, script_command
from holdwater.supervise.watcher import Record, Watcher
from holdwater.units import parse_size

BRISK, CALM = 0.05, 0.2
"""Seconds between two turns of the watcher, in the first ten seconds and later."""


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        help="run any training script unchanged, and judge its memory",
        description="Run an unchanged training script in this interpreter's environment and judge its memory: is "
        "it a leak, how fast, where will it end? The script's output, signals and exit code are its own.",
        usage="holdwater run [OPTIONS] SCRIPT [ARGS ...]\n       holdwater run [OPTIONS] -m MODULE [ARGS ...]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as one HTML file")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the run (default: runs/<date>-<name>)"
    )
    parser.add_argument("--max-memory", metavar="SIZE", help="the budget, such as 70GB (default: found)")
    parser.add_argument("--fail-on", choices=["leak"], help="exit with 3 when a leak was found")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="end the run with 0 after N steps")
    parser.add_argument("--quiet", action="store_true", help="print nothing of our own")
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS ...]", help="what to run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the script; return its exit code, or 3 where a leak was found and that was asked for."""
    words = _words(options)
    rank = int(os.environ.get("RANK", "0") or 0)
    json_file = options.json if options.json is None or rank == 0 else Path(f"{options.json}.rank-{rank}")
    check_writable("--json", json_file)
    check_writable("--report", options.report)
    budget = _budget(options.max_memory)
    out = free_run_folder(options.out, Path(words[0]).stem, rank=rank)
    with tempfile.TemporaryDirectory(prefix="holdwater-") as folder:
        create_channel(Path(folder) / "pulse")
        target = ["-m", *words] if options.module else words
        observed = _Observed(Path(folder), target, budget, out, last_step=options.steps, rank=rank)
        observed.follow()
        summary = _complete(observed, options)
        observed.close(summary)

    def leave() -> None:
        """Write what was asked for."""
        if json_file is not None:
            json_file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        if options.report is not None:
            _write_report(out, options.report, rank)
        if not options.quiet:
            _say(summary, out)

    return die_as(int(summary["exit_code"]), leave)


def _complete(observed: "_Observed", options: argparse.Namespace) -> dict[str, Any]:
    """The judgement as JSON (schema 1), with the command and the exit code."""
    summary = observed.summary()
    code = observed.exit_code
    if code == 0 and options.fail_on == "leak" and summary["verdict"] == "leak":
        code = LEAK_FOUND
    return {"schema": summary["schema"], "command": ["holdwater", *sys.argv[1:]], "exit_code": code} | summary


class _Observed:
    """One script, its process and what is known of it."""

    def __init__(  # noqa: PLR0913 - the parts of one run, by name
        self, place: Path, words: list[str], budget: Budget, out: Path, *, last_step: int, rank: int
    ) -> None:
        self.channel = Channel(place / "pulse")
        self.store = RunStore(out, rank=rank)
        facts = {"command": words, "budget": str(budget), "budget_bytes": int(budget.limit)}
        self.store.begin(began=time.time(), first_step=0, facts=facts)
        environment = dict(os.environ)
        self.process = ScriptProcess(script_command(place, words, last_step=last_step), environment)
        self.watcher = Watcher(Outside(self.process.pid), budget, channel=self.channel, folder=place)
        self._record = Record(self.store, self.watcher)
        self._budget = budget
        self._began = time.perf_counter()

    @property
    def exit_code(self) -> int:
        """The script's own; negative for a signal."""
        if self.channel.get("stopped") and self.process.exit_status in {0, None}:
            return 0
        return self.process.exit_status or 0

    def follow(self) -> None:
        """Watch until the script's process has ended."""
        while self.process.wait(self._pause()):
            self.watcher.turn()
            if self.channel.state == "ending":
                self.watcher.end()
            self._write()
        self.watcher.finish()

    def _write(self) -> None:
        """Write what is known into the store; an error of ours must not reach the script."""
        try:
            self._record.write(self.summary)
        except Exception as error:  # noqa: BLE001 - said once, at the end
            self.watcher.note_error(error)

    def summary(self) -> dict[str, Any]:
        """The judgement so far as JSON (schema 1), without command and exit code."""
        watcher = self.watcher
        peaks = [
            watcher.by_time.peak("peak_resident"),
            watcher.by_time.peak("resident"),
            watcher.by_step.peak("resident"),
        ]
        device = watcher.by_step.peak("device_reserved")
        summary = summarise(
            watcher.verdict,
            steps=watcher.steps,
            budget=self._budget,
            outcomes=(),
            overhead=self._overhead(),
            peak={
                "host_bytes": int(max(peak or 0 for peak in peaks)),
                "device_bytes": None if device is None else int(device),
            },
        )
        summary["actions"] = list(watcher.experiments)
        summary["overhead"]["attribution_seconds"] = self.channel.get_seconds("attribution_seconds")
        summary["overhead"]["watcher_seconds"] = time.process_time()
        summary["step_source"] = watcher.source
        summary["parts"] = parts(watcher)
        summary["evidence"] = asdict(watcher.evidence)
        if watcher.errors:
            summary["errors"] = watcher.errors[:10]
        return summary

    def close(self, summary: dict[str, Any]) -> None:
        """Write the last state of the run into its store."""
        self._record.write(lambda: summary, now=True)
        self.store.close()

    def _pause(self) -> float:
        """Seconds until the next turn."""
        if self.channel.state == "ending":
            return 0.002
        return BRISK if time.perf_counter() - self._began < 10 else CALM

    def _overhead(self) -> Overhead:
        """What looking has cost the script."""
        channel, account = self.channel, Account()
        costs = self.watcher.costs
        steps = max(self.watcher.steps, 1)
        for cost in costs:
            account.add(cost, steps=max(steps // max(len(costs), 1), 1))
        hook = channel.get_seconds("hook_seconds")
        return Overhead(
            guard_seconds=hook,
            run_seconds=channel.get_seconds("last_step_at") - channel.get_seconds("first_step_at"),
            step_us_mean=1e6 * hook / steps,
            step_us_p50=1e6 * account.percentile(0.50),
            step_us_p99=1e6 * account.percentile(0.99),
            startup_seconds=0.0,
        )


def parts(watcher: Watcher) -> dict[str, int]:
    """The split of resident memory at the newest count of objects, in bytes; what no part explains is said too."""
    buckets = watcher.timeline.buckets()
    held = watcher.evidence.holdings[-1] if watcher.evidence.holdings else None
    if len(buckets) == 0 or held is None:
        return {}
    return split_resident(buckets, held)


def _words(options: argparse.Namespace) -> list[str]:
    """What to run.

    Args:
        options: The parsed command line.

    Raises:
        ConfigError: Nothing is named, or a script that is not there.
    """
    words = list(options.words)
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        raise ConfigError("nothing to run; write `holdwater run train.py` or `holdwater run -m package.train`")
    if not options.module and not Path(words[0]).exists():
        raise ConfigError(f"{words[0]} does not exist; name a script, or write -m before a module")
    if options.steps < 0:
        raise ConfigError(
            f"--steps is {options.steps}, but a run cannot have fewer than no steps; write 1 or more"
        )
    return words


def _budget(max_memory: str | None) -> Budget:
    """The budget that was given, or one that the machine can spare."""
    machine = read_machine()
    if max_memory is None:
        return find_budget(machine)
    return give_budget(parse_size(max_memory, bare_unit="GB"), machine)


def _write_report(out: Path, report: Path, rank: int) -> None:
    """Write the HTML report."""
    from holdwater.report.html import write_html  # noqa: PLC0415 - only where it is asked for
    from holdwater.store.history import read_history  # noqa: PLC0415

    write_html(read_history(out, rank=rank), report)


def _say(summary: dict[str, Any], out: Path) -> None:
    """Say the verdict on standard error: standard output is the script's."""
    lines = [f"holdwater: {summary['verdict']} after {summary['steps']} steps (clock: {summary['step_source']})"]
    lines += [
        f"holdwater:   {finding['component']}: {finding['verdict']}: {finding['advice']}"
        for finding in summary["findings"]
    ]
    lines.append(f"holdwater:   history: {out} (holdwater report {out})")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - what a command is for
