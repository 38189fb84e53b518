"""`holdwater watch`: judge the memory of a process that is running already, from outside."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from holdwater.budget import Budgets
from holdwater.cli.checks import check_writable, choose_terms, free_run_folder
from holdwater.cli.fail_on import failure
from holdwater.config.flags import add_flags, read_flags
from holdwater.config.keys import FOLDER, VERDICT
from holdwater.errors import ConfigError, ProbeError
from holdwater.guard.account import Overhead
from holdwater.guard.summary import RunSummary, of_command
from holdwater.observe.candidates import Candidate, find_training, training_process
from holdwater.observe.news import NOTIFY, News, read_command
from holdwater.observe.recorder import Record
from holdwater.observe.request import ask_inventory
from holdwater.observe.watcher import Watcher
from holdwater.probes.outside import Outside
from holdwater.store.run_store import RunStore
from holdwater.units import format_size


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "watch",
        help="watch a process that is running already",
        description="Watch the memory of a running process, its children and its GPU from outside and judge it by "
        "the clock, until it ends or you press Ctrl-C.",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("pid", nargs="?", type=int, metavar="PID", help="number of the process")
    target.add_argument("--name", metavar="PATTERN", help="part of the command line of the process")
    target.add_argument("--find", action="store_true", help="list the processes that look like training, and end")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two readings (default: 5)"
    )
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end after this time")
    groups = add_flags(parser, "watch")
    groups[FOLDER].add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the run (default: nothing is kept)"
    )
    groups[VERDICT].add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    groups[VERDICT].add_argument("--notify", metavar="COMMAND", help=NOTIFY)
    groups[VERDICT].add_argument("--quiet", action="store_true", help="print nothing")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="ask the process once what it holds (tensors, objects, optimizer state), print it, and end; "
        "it must have been started by `holdwater run`",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Watch; return the exit code.

    Args:
        options: The parsed command line.

    Returns:
        0, or 3 when something was found that `--fail-on` names.

    Raises:
        ConfigError: There is no such process, or more than one.
    """
    console = Console(quiet=options.quiet, highlight=False)
    if options.find:
        _list(find_training(), console)
        return 0
    if not options.every > 0:
        raise ConfigError(f"--every is {options.every:g}, but time must pass between readings; write 1 or more")
    values, command = read_flags(options, "watch"), read_command(options.notify)
    check_writable("--json", options.json)
    named = options.pid if options.pid is not None else _one(options.name)
    pid = training_process(named)
    if pid != named:
        console.print(f"{named} is holdwater itself; the training process that it started is {pid}")
    try:
        outside = Outside(pid)
    except ProbeError as error:
        raise ConfigError(
            f"{error}; `holdwater watch --find` lists the processes that look like training"
        ) from error
    if options.explain:
        return _explain(pid, options, console)
    return _watch(outside, options, console, values, command)


def _watch(
    outside: Outside, options: argparse.Namespace, console: Console, values: dict[str, Any], command: list[str]
) -> int:
    """Watch, tell what is found, and judge; return the exit code."""
    terms = choose_terms(values["max_memory"], values["max_host_memory"])
    watcher = Watcher(outside, terms, tick=options.every)
    record = None if options.out is None else _record(options.out, watcher, outside)
    news = News(quiet=True, command=command, least=values["least"] or 0.0)
    console.print(f"watching {outside.pid}: {outside.command()[:100]}")
    began = time.perf_counter()
    _follow(watcher, record, options, console, news)
    news.close()
    summary = _summary(watcher, watcher.budgets, time.perf_counter() - began)
    if record is not None:
        record.write(lambda: summary, now=True)
    return _leave(summary, options, console, failure(summary, values))


def _explain(pid: int, options: argparse.Namespace, console: Console) -> int:
    """Ask the process what it holds, and print it."""
    found = ask_inventory(pid)
    if options.json is not None:
        options.json.write_text(json.dumps(found | {"pid": pid}, indent=1) + "\n", encoding="utf-8")
    console.print(f"process {pid} after {found['step']} steps", markup=False)
    console.print(found["text"], markup=False)
    return 0


def _leave(summary: dict[str, Any], options: argparse.Namespace, console: Console, code: int) -> int:
    """Write and print the verdict; return the exit code."""
    if options.json is not None:
        report = of_command(summary, ["holdwater", *sys.argv[1:]], code)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for finding in summary["findings"]:
        console.print(f"{finding['component']}: {finding['verdict']}: {finding['advice']}")
    console.print(f"verdict: {summary['verdict']}")
    return code


def _follow(
    watcher: Watcher, record: Record | None, options: argparse.Namespace, console: Console, news: News
) -> None:
    """Read until the process has ended, the time is over, or Ctrl-C is pressed."""
    end = time.perf_counter() + options.seconds if options.seconds else float("inf")
    said = None
    try:
        while watcher.turn() and time.perf_counter() < end:
            news.tell(watcher)
            if record is not None:
                record.write(lambda: _summary(watcher, watcher.budgets, 0.0))
            if watcher.verdict is not said:
                said = watcher.verdict
                console.print(_line(watcher))
            time.sleep(min(options.every, max(end - time.perf_counter(), 0.0)))
        if time.perf_counter() < end:
            console.print("the process has ended")
    except KeyboardInterrupt:
        console.print("stopped watching; the process continues")
    watcher.finish()
    news.tell(watcher, final=True)


def _line(watcher: Watcher) -> str:
    """The current state as one line."""
    buckets = watcher.by_time.buckets()
    resident = float(buckets.lows("resident")[-1]) if len(buckets) else 0.0
    text = f"{time.strftime('%H:%M:%S')}  resident {format_size(resident)}  {watcher.verdict.kind}"
    rates = [finding.rate for finding in watcher.verdict.findings if finding.verdict == "leak" and finding.rate]
    return text + "".join(f"  +{format_size(rate.bytes_per_step / watcher.tick)}/s" for rate in rates)


def _summary(watcher: Watcher, budgets: Budgets, seconds: float) -> dict[str, Any]:
    """The judgement so far as JSON (schema 1), without command and exit code."""
    overhead = Overhead(time.process_time(), seconds, 0.0, 0.0, 0.0, 0.0)
    timeline = watcher.by_time
    peak = {
        "host_bytes": int(max(timeline.peak("peak_resident") or 0, timeline.peak("resident") or 0)),
        "device_bytes": int(timeline.peak("device_used") or 0) or None,
    }
    return RunSummary(
        verdict=watcher.verdict,
        steps=0,
        budgets=budgets,
        overhead=overhead,
        peak=peak,
        step_source="time",
        seconds_per_step=watcher.tick,
        errors=watcher.errors,
    ).as_json()


def _one(pattern: str) -> int:
    """The one process whose command line holds the pattern.

    Args:
        pattern: Part of a command line.

    Raises:
        ConfigError: There is none, or more than one.
    """
    found = [candidate for candidate in find_training(pattern) if pattern in candidate.command]
    if len(found) == 1:
        return found[0].pid
    if not found:
        raise ConfigError(f"--name {pattern!r} matches no running process; `holdwater watch --find` lists some")
    listed = ", ".join(f"{candidate.pid} ({candidate.command[:60]})" for candidate in found[:8])
    raise ConfigError(
        f"--name {pattern!r} matches {len(found)} processes: {listed}; name a PID, or write more of it"
    )


def _list(found: list[Candidate], console: Console) -> None:
    """Print the processes that look like training."""
    if not found:
        console.print("no running process looks like training; name one by its PID")
        return
    table = Table("PID", "memory", "children", "why", "command", box=None)
    for candidate in found:
        size = format_size(candidate.resident)
        table.add_row(str(candidate.pid), size, str(candidate.children), candidate.why, candidate.command[:90])
    console.print(table)


def _record(out: Path, watcher: Watcher, outside: Outside) -> Record:
    """Open the history of the run."""
    store = RunStore(free_run_folder(out, "watch"))
    store.begin(began=time.time(), first_step=0, facts={"command": outside.command(), "pid": outside.pid})
    return Record(store, watcher)
