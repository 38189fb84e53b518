"""What a run's findings tell the user while it goes on: only news, at most a line a minute."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdwater.detectors.verdict import Component, Finding, Rate, Verdict, VerdictKind
from holdwater.errors import ConfigError
from holdwater.observe.news import PATIENCE, SPACING, News, read_command
from holdwater.units import Step


class Seconds:
    """A clock that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def found(kind: VerdictKind, component: Component = "host.python", *, rate: float = 2000.0) -> Finding:
    """A finding of step 1234."""
    return Finding(
        verdict=kind,
        component=component,
        detected_step=Step(1234),
        message="memory grows",
        rate=None if kind == "pressure" else Rate(rate, rate, rate, 0.95),
    )


def watcher(*findings: Finding, settled: bool = True, knows_budgets: bool = True) -> Any:
    """A watcher that has found something."""
    return SimpleNamespace(
        verdict=Verdict.of(findings, Step(1234)), settled=settled, knows_budgets=knows_budgets,
        source="torch", tick=0.1, pid=7, explanations={},
    )  # fmt: skip


class TestLines:
    """On standard error."""

    def test_say_a_finding_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        """In one line, the first time that it is there."""
        clock = Seconds()
        news = News(quiet=False, clock=clock)
        for _ in range(3):
            news.tell(watcher(found("leak")))
            clock.now += 2 * SPACING

        told = capsys.readouterr()

        assert told.err == "holdwater: step 1,234: leak of host.python: memory grows\n"
        assert told.out == ""

    def test_come_at_most_once_a_minute(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What is found meanwhile is said a minute later."""
        clock = Seconds()
        news = News(quiet=False, clock=clock)
        both = watcher(found("leak"), found("pressure", "device.reserved"))

        news.tell(both)
        news.tell(both)
        within = capsys.readouterr().err
        clock.now += SPACING
        news.tell(both)

        assert within.count("\n") == 1
        assert capsys.readouterr().err == "holdwater: step 1,234: memory grows\n"

    def test_say_what_became_a_leak_and_not_what_became_less(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A fragmentation that is a leak after all is news; the reverse is not."""
        clock = Seconds()
        news = News(quiet=False, clock=clock)
        for kind in ("fragmentation", "leak", "fragmentation"):
            news.tell(watcher(found(kind)))
            clock.now += SPACING

        said = capsys.readouterr().err

        assert [line.split()[3] for line in said.splitlines()] == ["fragmentation", "leak"]

    @pytest.mark.parametrize(
        "quiet_watcher",
        [
            watcher(found("warming")),
            watcher(found("bounded")),
            watcher(found("leak"), settled=False),
            watcher(found("leak", rate=900.0)),
            watcher(found("pressure"), knows_budgets=False),
        ],
        ids=["warming", "bounded", "not tested yet", "smaller than --least", "perhaps the device's budget"],
    )
    def test_ignore_what_is_not_grave(self, quiet_watcher: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """Growth that may still stop is no news."""
        News(quiet=False, least=1000.0).tell(quiet_watcher)

        assert capsys.readouterr().err == ""

    def test_are_not_printed_when_quiet_or_at_the_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The verdict follows at the end."""
        News(quiet=True).tell(watcher(found("leak")))
        News(quiet=False).tell(watcher(found("leak"), settled=False), final=True)

        assert capsys.readouterr().err == ""

    def test_are_lost_where_standard_error_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And nothing else is."""
        monkeypatch.setattr(sys, "stderr", None)

        News(quiet=False).tell(watcher(found("leak")))


class TestCommand:
    """`--notify`."""

    def test_gets_each_finding_as_json(self, tmp_path: Path) -> None:
        """Also when quiet, and without waiting for a minute to pass."""
        command = [sys.executable, "-c", f"import sys; open({str(tmp_path / 'n')!r}, 'a').write(sys.stdin.read())"]
        news = News(quiet=True, command=command)

        news.tell(watcher(found("leak")))
        news.close()
        news.tell(watcher(found("leak"), found("pressure", "host.native")))
        news.close()

        rows = [json.loads(line) for line in (tmp_path / "n").read_text().splitlines()]
        assert [(row["verdict"], row["component"]) for row in rows] == [
            ("leak", "host.python"),
            ("pressure", "host.native"),
        ]
        assert (rows[0]["schema"], rows[0]["rate"]["bytes_per_step"], rows[0]["pid"]) == (1, 2000.0, 7)

    @pytest.mark.parametrize(
        ("code", "words"),
        [("raise SystemExit(3)", "ended with 3"), ("import time; time.sleep(60)", "ended with -9")],
    )
    def test_costs_nothing_when_it_fails_or_hangs(
        self, code: str, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is ended after a few seconds, and that is said."""
        clock = Seconds()
        news = News(quiet=False, command=[sys.executable, "-c", code], clock=clock)
        began = time.monotonic()

        news.tell(watcher(found("leak")))
        told = time.monotonic() - began
        if "sleep" in code:
            clock.now += PATIENCE
        news.close()

        assert told < 2
        assert f"the command of --notify {words}" in capsys.readouterr().err

    def test_that_cannot_be_started_costs_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It may have been removed since the run began."""
        news = News(quiet=False, command=["/nonexistent/program"])

        news.tell(watcher(found("leak")))
        news.close()

        assert "the command of --notify could not be run" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "words"),
        [("no-such-program -x", "there is no such program"), ("sh 'x", "cannot be read"), ("", "no such")],
    )
    def test_is_checked_before_the_run(self, text: str, words: str) -> None:
        """A mistake must not be found when the leak is."""
        with pytest.raises(ConfigError, match=words):
            read_command(text)

    def test_is_read_as_words_of_a_shell(self) -> None:
        """Quotes hold words together."""
        assert read_command("sh -c 'cat > note'") == ["sh", "-c", "cat > note"]
