"""Test with pytest that memory stays flat: a fixture and a marker, which call a step until a leak can be told.

    def test_step(flat_memory):
        flat_memory(step)

    @pytest.mark.flat_memory(steps=2000)
    def test_train_step(): ...          # the test itself is the step, called again and again

Loading this costs a test run nothing: what measures is imported when a test uses it.
"""

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from holdwater.testing.call_verdict import CallVerdict

PROPERTY = "flat_memory"
"""The name under which a verdict is kept with its test, in JUnit XML too."""
MARKER = (
    "flat_memory(steps=None, seconds=45): call the test again and again until it can be told whether it leaks, "
    "at most this many times; with the fixture flat_memory, only its limits are set"
)


class FlatMemory:
    """Calls a step until it can be told whether it leaks; the test fails if it does."""

    def __init__(self, node: pytest.Item) -> None:
        """Bind to a test.

        Args:
            node: The test, whose report gets the verdict.
        """
        self._node = node

    def __call__(self, step: Callable[[], Any], **limits: Any) -> "CallVerdict":  # noqa: ANN401 - checked below
        """Call a step again and again.

        Args:
            step: Called without arguments; what it returns is dropped. What it prints is not kept.
            limits: `steps`, the most calls, and `seconds`, the most seconds; the marker's are taken where none
                are given.

        Returns:
            The verdict; `str()` of it says what leak could have been missed.
        """
        __tracebackhide__ = True
        from holdwater.errors import ConfigError  # noqa: PLC0415 - loading the plugin costs nothing
        from holdwater.testing.flat_memory import CallLimits, check_step, judge_function  # noqa: PLC0415

        wrong = None
        try:
            limits = _limits_of(self._node) | limits
            check_step(step, limits)
        except ConfigError as error:
            wrong = str(error)
        if wrong is not None:
            pytest.fail(wrong, pytrace=False)
        with _warnings_kept_once():
            verdict = judge_function(step, CallLimits(**limits), between=_forget_output)
        self._node.user_properties.append((PROPERTY, json.dumps(_row(self._node, verdict))))
        if verdict.kind == "leak":
            pytest.fail(str(verdict), pytrace=False)
        return verdict


@pytest.fixture
def flat_memory(request: pytest.FixtureRequest) -> FlatMemory:
    """Call a step until it can be told whether it leaks: `flat_memory(step)`; the test fails if it does."""
    return FlatMemory(request.node)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse the marker where pytest does not let a plugin call the test."""
    if item.get_closest_marker("flat_memory") is None or _uses_fixture(item):
        return
    function = getattr(item, "obj", None)
    if type(item) is not pytest.Function or inspect.iscoroutinefunction(function):
        pytest.fail(
            f"the marker flat_memory cannot call {item.name} again and again, since it is no plain test function; "
            "take the fixture flat_memory in a plain test, and write flat_memory(step)",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a marked test again and again; others are left to pytest."""
    if pyfuncitem.get_closest_marker("flat_memory") is None or _uses_fixture(pyfuncitem):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 - as pytest itself does
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    FlatMemory(pyfuncitem)(partial(pyfuncitem.obj, **arguments))
    return True


def pytest_terminal_summary(terminalreporter: "TerminalReporter") -> None:
    """Say of each test what leak could have been missed, and annotate leaks where GitHub runs the tests."""
    rows = [
        (report.nodeid, json.loads(value))
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY and getattr(report, "when", None) == "call"
    ]
    if not rows:
        return
    terminalreporter.section("flat memory")
    for nodeid, row in rows:
        terminalreporter.write_line(f"{nodeid}: {row['verdict'].splitlines()[0]}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for _, row in rows:
            if row["kind"] == "leak":
                terminalreporter.write_line(_annotation(row))


def _limits_of(node: pytest.Item) -> dict[str, Any]:
    """The limits that a test's marker sets."""
    marker = node.get_closest_marker("flat_memory")
    if marker is None:
        return {}
    if marker.args:
        pytest.fail(
            f"flat_memory{marker.args}: write a name with each limit, such as flat_memory(steps=2000)",
            pytrace=False,
        )
    return dict(marker.kwargs)


def _uses_fixture(item: pytest.Item) -> bool:
    """Whether a test calls the fixture itself."""
    return "flat_memory" in getattr(item, "fixturenames", ())


def _row(node: pytest.Item, verdict: "CallVerdict") -> dict[str, Any]:
    """A verdict with the place to look at: the first site, else the test itself."""
    site = verdict.site
    file, line, _ = node.location
    place = (file, (line or 0) + 1) if site is None else (site.file, site.line)
    return {
        "kind": verdict.kind,
        "calls": verdict.calls,
        "missed_bytes_per_call": None if verdict.kind in {"leak", "unknown"} else verdict.missed,
        "component": verdict.component,
        "bytes_per_call": None if verdict.rate is None else verdict.rate.bytes_per_call,
        "file": _in_the_repository(place[0], node.config.rootpath),
        "line": place[1],
        "verdict": str(verdict),
    }


def _in_the_repository(file: str, root: Path) -> str:
    """A file's path as annotations want it: from the root of the repository, where it lies there."""
    path = root / file
    top = Path(os.environ.get("GITHUB_WORKSPACE") or root)
    return str(path.relative_to(top)) if path.is_relative_to(top) else str(path)


def _annotation(row: dict[str, Any]) -> str:
    """A leak as a workflow command of GitHub.

    Source: GitHub documentation, "Workflow commands for GitHub Actions" (what is escaped, and how).
    """
    text = str(row["verdict"]).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    file = str(row["file"]).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::error file={file},line={row['line']},title=Memory leaks::{text}"


def _forget_output() -> None:
    """Release what pytest keeps in memory of the calls so far: log records, and output that is captured there."""
    import logging  # noqa: PLC0415 - as above

    for handler in logging.getLogger().handlers:
        if type(handler).__module__ == "_pytest.logging" and hasattr(handler, "clear"):
            handler.clear()
    for stream in (sys.stdout, sys.stderr):
        if type(stream).__module__ == "_pytest.capture" and hasattr(stream, "getvalue"):
            stream.seek(0)
            stream.truncate()


@contextmanager
def _warnings_kept_once() -> Iterator[None]:
    """Each place's warning is passed on once: pytest would keep one for every call."""
    kept: dict[tuple[type[Warning], str, int], warnings.WarningMessage] = {}

    def keep(*given: Any, **named: Any) -> None:  # noqa: ANN401 - the signature of showwarning
        message = warnings.WarningMessage(*given, **named)
        kept.setdefault((message.category, message.filename, message.lineno), message)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = keep
            yield
    finally:
        for message in kept.values():
            warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)
