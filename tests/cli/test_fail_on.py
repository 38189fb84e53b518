"""`--fail-on`, `--least`, `--notify` and the news of `holdwater run`, as users call it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdwater.cli.fail_on import failure

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LARGE = "import sys, time\nkept = b'x' * 300_000_000\ntime.sleep(4)\nprint('the end', file=sys.stderr)\n"
"""Takes 300 MB at once, and says on standard error when it ends."""


def row(verdict: str, *, rate: float | None = None, component: str = "host.python", advice: str = "") -> Any:
    """A finding as JSON."""
    rates = None if rate is None else {"bytes_per_step": rate}
    return {"verdict": verdict, "component": component, "rate": rates, "advice": advice}


class TestFailure:
    """Which judgements are a failure."""

    @pytest.mark.parametrize(
        ("finding", "fail_on"),
        [
            (row("leak", rate=2000.0), "leak"),
            (row("leak", rate=3.0, component="process.handles"), "leak"),
            (row("warming", rate=10.0), "warming"),
            (row("fragmentation", rate=10.0), "fragmentation"),
            (row("pressure", advice="over budget: resident memory is 2 GB"), "over-budget"),
        ],
    )
    def test_is_what_was_named(self, finding: Any, fail_on: str) -> None:
        """And nothing else; among several names too."""
        summary = {"findings": [row("flat"), finding]}
        others = [name for name in ("leak", "warming", "fragmentation", "over-budget") if name != fail_on]

        assert failure(summary, {"fail_on": (fail_on,), "least": 1000.0}) == 3
        assert failure(summary, {"fail_on": (*others, fail_on), "least": None}) == 3
        assert failure(summary, {"fail_on": tuple(others), "least": 1000.0}) == 0
        assert failure(summary, {"fail_on": None, "least": None}) == 0

    @pytest.mark.parametrize(
        "finding", [row("leak", rate=900.0), row("pressure", advice="waiting: 1 GB available")]
    )
    def test_is_not_what_is_small_or_only_near(self, finding: Any) -> None:
        """A leak below --least, a machine that is short while the budget is kept."""
        wanted = {"fail_on": ("leak", "over-budget"), "least": 1000.0}

        assert failure({"findings": [finding]}, wanted) == 0


class TestOverBudget:
    """A script that takes more than --max-memory, without a supervisor."""

    def test_is_said_at_once_and_ends_with_3(self, holdwater: Run, tmp_path: Path) -> None:
        """Before the script ends; the command is told as well."""
        (tmp_path / "large.py").write_text(LARGE)
        flags = ("--max-memory", "200MB", "--fail-on", "leak,over-budget", "--notify", "sh -c 'cat > note'")

        done = holdwater("run", *flags, "large.py")

        said = done.stderr.splitlines()
        news = next(number for number, line in enumerate(said) if "over the budget of 200 MB" in line)
        assert done.returncode == 3
        assert said[news].startswith("holdwater: after ")
        assert news < said.index("the end")
        note = json.loads((tmp_path / "note").read_text())
        assert (note["verdict"], note["component"]) == ("pressure", "host.native")

    def test_is_not_said_of_one_within_its_budget(self, holdwater: Run, tmp_path: Path) -> None:
        """The twin: the same script with more."""
        (tmp_path / "large.py").write_text(LARGE)
        flags = ("--max-memory", "1GB", "--fail-on", "leak,over-budget", "--notify", "sh -c 'cat > note'")

        done = holdwater("run", *flags, "large.py")

        assert done.returncode == 0
        assert done.stderr.startswith("the end\n")
        assert not (tmp_path / "note").exists()

    @pytest.mark.parametrize("quiet", [(), ("--quiet",)])
    def test_leaves_the_exit_code_of_the_script(
        self, holdwater: Run, tmp_path: Path, quiet: tuple[str, ...]
    ) -> None:
        """3 replaces 0 only; --quiet says nothing."""
        (tmp_path / "large.py").write_text(LARGE + "raise SystemExit(5)\n")

        done = holdwater("run", "--max-memory", "200MB", "--fail-on", "over-budget", *quiet, "large.py")

        assert done.returncode == 5
        assert not quiet or done.stderr == "the end\n"


LEAK = """
import time, torch
torch.manual_seed(0); torch.set_num_threads(1)
model = torch.nn.Linear(16, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
kept = []
for step in range(300):
    model(torch.randn(8, 16)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    kept.append(torch.ones(50_000))
    time.sleep(0.02)
"""
"""Keeps 200 kB a step."""


class TestLeast:
    """The smallest leak that matters."""

    @pytest.mark.parametrize(("least", "status"), [("100kB/step", 3), ("1MB/step", 0)])
    def test_decides_what_fails_and_what_is_told(
        self, holdwater: Run, tmp_path: Path, least: str, status: int
    ) -> None:
        """The verdict is a leak in both."""
        (tmp_path / "leak.py").write_text(LEAK)
        flags = ("--fail-on", "leak", "--least", least, "--json", "v.json", "--max-memory", "8GB", "--quiet")

        done = holdwater("run", *flags, "--notify", "sh -c 'cat >> notes'", "leak.py")

        verdict = json.loads((tmp_path / "v.json").read_text())
        assert (done.returncode, done.stderr, verdict["verdict"]) == (status, "", "leak")
        notes = tmp_path / "notes"
        told = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        assert [(row["verdict"], row["component"]) for row in told] == [("leak", "host.tensors")] * (status == 3)
