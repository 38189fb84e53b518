"""`holdwater run`: run an unchanged training script, and judge its memory."""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from holdwater.budget import Terms
from holdwater.cli.checks import attempt, check_writable, choose_terms, free_run_folder, make_folder, write_verdict
from holdwater.cli.fail_on import failure
from holdwater.cli.termination import leave_message
from holdwater.config.flags import add_flags, read_flags
from holdwater.config.keys import FOLDER, PROCESSES, VERDICT
from holdwater.errors import ConfigError
from holdwater.observe.news import NOTIFY, News, read_command
from holdwater.process.channel import Channel
from holdwater.process.channel_folder import channel_folder
from holdwater.process.signals import hold_signals
from holdwater.process.spawn import ScriptProcess, die_as, script_command
from holdwater.standard_error import write_line
from holdwater.supervise.flags import add_supervision_flags, is_supervised


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        help="run any training script unchanged, and judge its memory",
        description="Run an unchanged training script in this interpreter's environment and judge its memory: is "
        "it a leak, how fast, where will it end? The script's output, signals and exit code are its own.",
        usage="holdwater run [OPTIONS] SCRIPT [ARGS ...]\n       holdwater run [OPTIONS] -m MODULE [ARGS ...]",
    )
    groups = add_flags(parser, "run")
    folder, verdict = groups[FOLDER], groups[VERDICT]
    folder.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the run (default: runs/<date>-<name>)"
    )
    verdict.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    verdict.add_argument("--report", type=Path, metavar="FILE", help="write the report as one HTML file")
    verdict.add_argument("--notify", metavar="COMMAND", help=NOTIFY)
    verdict.add_argument("--quiet", action="store_true", help="print nothing of holdwater's own")
    add_supervision_flags(groups[PROCESSES])
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="end the run with 0 after N steps")
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS ...]", help="what to run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the script; return its exit code, or 3 in place of 0 if what `--fail-on` names was found."""
    words = _words(options)
    values = read_flags(options, "run") | {"steps": options.steps}
    news = News(
        quiet=options.quiet, command=read_command(options.notify), least=values["least"] or 0.0, who=_who()
    )
    rank = int(os.environ.get("RANK", "0") or 0)
    json_file, page = _files(options, rank)
    terms = choose_terms(values["max_memory"], values["max_host_memory"])
    supervised = is_supervised(options, values)
    going_on = options.out if options.resume else None
    out = make_folder(going_on or free_run_folder(options.out, Path(words[0]).stem, rank=rank))
    target = ["-m", *words] if options.module else words
    start = _supervise if supervised else _observe
    summary = _complete(start(values, target, terms, out, news), values)

    def leave() -> None:
        """Write what was asked for; what fails here does not change how the script has ended."""
        if "verdict" not in summary:
            return
        if "end" in summary:
            attempt("the termination message", lambda: leave_message(f"holdwater: {summary['end']['text']}\n"))
        if json_file is not None:
            write_verdict(json_file, summary)
        if page is not None:
            attempt(f"--report {page}", lambda: _write_report(out, page, rank))
        if not options.quiet:
            attempt("the verdict", lambda: _say(summary, out))
        news.close()

    return die_as(int(summary["exit_code"]), leave)


def _files(options: argparse.Namespace, rank: int) -> tuple[Path | None, Path | None]:
    """The files of the verdict and of the report; None where not asked for. Each rank has its own."""
    json_file: Path | None = options.json
    page: Path | None = options.report
    if json_file is not None and rank:
        json_file = Path(f"{json_file}.rank-{rank}")
    if page is not None and rank:
        page = page.with_name(f"{page.stem}.rank-{rank}{page.suffix}")
    for flag, file in (("--json", json_file), ("--report", page)):
        check_writable(flag, file)
    return json_file, page


def _observe(values: Mapping[str, Any], words: list[str], terms: Terms, out: Path, news: News) -> dict[str, Any]:
    """Run the script once; return its judgement, if there is one, and its exit code."""
    with channel_folder(out) as channel:
        command = script_command(channel.path.parent, words, last_step=values["steps"])
        hold_signals(words)
        process = ScriptProcess(command, os.environ)
        try:
            return _follow(process, channel, values, words, terms, out, news)
        except Exception as error:  # noqa: BLE001 - what is started is followed to its end
            write_line(f"holdwater: the script is not observed any more, and there is no verdict: {error!r}")
            while process.wait(1.0):
                pass
            return {"exit_code": process.exit_status}


def _follow(  # noqa: PLR0913, PLR0917 - what there is before the script is started
    process: ScriptProcess,
    channel: Channel,
    values: Mapping[str, Any],
    words: list[str],
    terms: Terms,
    out: Path,
    news: News,
) -> dict[str, Any]:
    """Observe a script until it has ended."""
    from holdwater.observe.observed_run import ObservedRun  # noqa: PLC0415 - numpy loads while the script starts
    from holdwater.store.run_store import open_store  # noqa: PLC0415

    rank = int(os.environ.get("RANK", "0") or 0)
    observed = ObservedRun(process, channel, terms, open_store(out, rank=rank), words=words, news=news)
    observed.follow()
    summary = observed.summary() | {"exit_code": observed.exit_code} | observed.ending()
    observed.write_down(_complete(dict(summary), values))
    observed.close()
    observed.store.close()
    return summary


def _supervise(values: Mapping[str, Any], words: list[str], terms: Terms, out: Path, news: News) -> dict[str, Any]:
    """Run the script in one process after another; return the judgement of all, and the exit code."""
    hold_signals()
    from holdwater.supervise.scripts import SupervisedRun  # noqa: PLC0415 - numpy starts threads

    with ExitStack() as closing:
        supervised = SupervisedRun(values, words, terms, out, closing)
        supervised.news = news
        return supervised.run()


def _complete(summary: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The judgement as JSON (schema 1), with the command and the exit code."""
    if "verdict" not in summary:
        return summary
    code = int(summary.pop("exit_code")) or failure(summary, values)
    from holdwater.guard.summary import of_command  # noqa: PLC0415 - numpy is loaded after the script has ended

    return of_command(summary, ["holdwater", *sys.argv[1:]], code)


def _words(options: argparse.Namespace) -> list[str]:
    """The script or module to run, with its arguments.

    Args:
        options: The parsed command line.

    Raises:
        ConfigError: No script is named, or it does not exist.
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


def _write_report(out: Path, report: Path, rank: int) -> None:
    """Write the HTML report."""
    from holdwater.report.html import write_html  # noqa: PLC0415 - only with --report
    from holdwater.store.history import read_history  # noqa: PLC0415

    note = f"This is rank {rank}." if "RANK" in os.environ else ""
    write_html(read_history(out, rank=rank), report, note=note)


def _say(summary: dict[str, Any], out: Path) -> None:
    """Print the verdict to standard error: standard output is the script's."""
    from holdwater.report.explained import explanations_in_words  # noqa: PLC0415 - the script is started first

    lines = [f"holdwater: {_who()}{summary['verdict']} {_by_clock(summary)}"]
    replaced = [action["seconds"] for action in summary["actions"] if action["action"] == "recycle"]
    if replaced:
        middle = sorted(replaced)[len(replaced) // 2]
        times = "once" if len(replaced) == 1 else f"{len(replaced)} times"
        lines.append(f"holdwater:   the process was replaced {times}, which took {middle:.2f} s in the median")
    for finding, words in zip(summary["findings"], explanations_in_words(summary["findings"]), strict=True):
        lines.append(f"holdwater:   {finding['component']}: {finding['verdict']}: {finding['advice']}")
        lines += [f"holdwater:     {line}" for line in words]
    lines.append(f"holdwater:   history: {out} (holdwater report {out})")
    if "end" in summary:
        lines.append(f"holdwater: {_who()}{summary['end']['text']}")
    write_line("\n".join(lines))


def _who() -> str:
    """The rank of this process where there are several; else empty."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    return f"rank {os.environ['RANK']}: " if several else ""


def _by_clock(summary: Mapping[str, Any]) -> str:
    """How long the run was, by its clock."""
    if summary["step_source"] == "time":
        return f"by the clock: it counted {summary['steps']:,} steps"
    return f"after {summary['steps']:,} steps (clock: {summary['step_source']})"
