"""`holdwater replay`: judge a stored run again, with today's detectors."""

import argparse
import json
from pathlib import Path
from typing import Any

from holdwater.budget import Budget, Budgets
from holdwater.cli.checks import check_writable
from holdwater.cli.fail_on import failure
from holdwater.config.flags import add_flags, read_flags
from holdwater.config.keys import VERDICT
from holdwater.detectors.evidence import Evidence
from holdwater.detectors.growth import by_time
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.verdict import Verdict
from holdwater.errors import StoreError
from holdwater.guard.summary import SCHEMA, summarise_findings
from holdwater.observe.watcher import TICK
from holdwater.store.history import read_history
from holdwater.units import Bytes

KEPT = ("steps", "step_source", "actions", "overhead", "peak", "budget", "budgets")
"""Measured values that are copied from the stored summary, not judged again."""

UNKNOWN = Budgets(Budget(Bytes(16_000_000_000), "found", "none is stored; 16 GB is taken"))


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "replay",
        help="judge a stored run again",
        description="Judge a stored run again with the detectors of this version; its folder stays as it is.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--rank", type=int, default=0, metavar="N", help="which process of the run (default: 0)")
    verdict = add_flags(parser, "replay")[VERDICT]
    verdict.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    verdict.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge again; return the exit code.

    Args:
        options: The parsed command line.

    Returns:
        0, or 3 when something was found that `--fail-on` names.

    Raises:
        StoreError: The run cannot be read, or holds no history.
    """
    values = read_flags(options, "replay")
    check_writable("--json", options.json)
    history = read_history(options.folder, rank=options.rank)
    if len(history.samples) == 0:
        raise StoreError(f"{options.folder} holds no samples: the run ended before its first was written")
    then = history.summary or {}
    evidence = Evidence.from_json(then.get("evidence", {}))
    verdict = judge(
        history.samples, history.budgets or UNKNOWN, config=_config(then), evidence=evidence, final=True
    ).verdict
    pressure = [one for one in then.get("findings", []) if one["verdict"] == "pressure"]  # is measured, not judged
    code = failure({"findings": [*summarise_findings(verdict), *pressure]}, values)
    if options.json is not None:
        summary = _summary(verdict, then, options, code)
        options.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if not options.quiet:
        print(_text(verdict, then))  # noqa: T201 - what a command is for
    return code


def _summary(verdict: Verdict, then: dict[str, Any], options: argparse.Namespace, code: int) -> dict[str, Any]:
    """The new judgement as JSON (schema 1); measured values are copied from the stored summary."""
    kept: dict[str, Any] = {key: then[key] for key in KEPT if key in then}
    return {
        "schema": SCHEMA,
        "command": ["holdwater", "replay", str(options.folder)],
        "exit_code": code,
        "steps": int(verdict.step),
        "step_source": "time",
        "actions": [],
        "overhead": {},
        "peak": {},
        **kept,
        "verdict": verdict.kind,
        "findings": summarise_findings(verdict),
        "verdict_then": then.get("verdict"),
    }


def _config(then: dict[str, Any]) -> JudgeConfig:
    """The judge's settings: by time, in ticks, if the run counted no steps."""
    return (
        JudgeConfig(by_time(TICK), seconds_per_step=TICK) if then.get("step_source") == "time" else JudgeConfig()
    )


def _text(verdict: Verdict, then: dict[str, Any]) -> str:
    """The new judgement as text."""
    lines = [f"verdict: {verdict.kind} (then: {then.get('verdict', 'none')}), at step {verdict.step}"]
    lines += [f"  {finding.component}: {finding.verdict}: {finding.message}" for finding in verdict.findings]
    return "\n".join(lines)
