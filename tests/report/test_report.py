"""The report: the verdict in words and numbers, in the terminal and in a real browser."""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from holdwater.actions.perform import Outcome
from holdwater.budget import Budget, MachineMemory
from holdwater.guard.guard import Guard
from holdwater.probes.observer import Observer
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.report.html import render_html, write_html
from holdwater.report.parts import memory_parts
from holdwater.report.plot import ticks
from holdwater.report.terminal import print_report
from holdwater.store.history import History, read_history
from holdwater.testing import ManualClock
from holdwater.units import Bytes, Step

GB = 10**9
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Scripted(Observer):
    """Reads memory from a formula."""

    def __init__(self, clock: ManualClock, rate: float, reserved: int | None = None) -> None:
        super().__init__(clock.elapsed, [])
        self._clock, self._rate, self._reserved = clock, rate, reserved

    def sample(self, step: Step, *, loss: float | None = None, everything: bool = False) -> Sample:
        """300 MB, growing by the rate."""
        resident = int(3e8 + self._rate * step)
        look = Look(
            anonymous=Bytes(resident - 60_000_000),
            file=Bytes(50_000_000),
            shared_memory=Bytes(0),
            heap_in_use=Bytes(resident - 100_000_000),
            heap_kept=Bytes(10_000_000),
            children=Bytes(40_000_000),
            available=Bytes(50 * GB),
        )
        reserved = None if self._reserved is None else Bytes(self._reserved)
        device = None if reserved is None else DeviceMemory(reserved, reserved)
        return Sample(step, self._clock.elapsed(), Bytes(resident), device, look, loss)


def make_run(
    folder: Path, *, steps: int = 1500, rate: float = 0.0, name: str = "run", reserved: int | None = None
) -> History:
    """A stored run of 0.1 s a step, with evaluations and a checkpoint; on a device of 8 GB where it reserves some."""
    clock = ManualClock()
    size = None if reserved is None else Bytes(8 * GB)
    machine = MachineMemory(total=Bytes(100 * GB), available=Bytes(90 * GB), device_size=size)
    observer = Scripted(clock, rate, reserved)
    guard = Guard(max_memory="2GB", out=folder / name, machine=machine, clock=clock, observer=observer)
    guard.facts = {"command": ["holdwater", "train", "<script>alert(1)</script>"]}
    with guard:
        for step in range(1, steps + 1):
            clock.advance(0.1)
            guard.step(loss=3.0 / step**0.1)
            if step % 500 == 0:
                guard.mark("evaluation", loss=2.0)
                guard.mark("checkpoint")
    return read_history(folder / name)


def in_terminal(history: History) -> str:
    """What the terminal shows, without colours."""
    out = io.StringIO()
    print_report(history, Console(file=out, width=100, no_color=True))
    return out.getvalue()


def as_of_old(history: History) -> History:
    """The same, stored before budgets were kept by pool."""
    sessions = []
    for session in history.sessions:
        facts = {name: value for name, value in session.facts.items() if name != "budgets"}
        summary = {name: value for name, value in (session.summary or {}).items() if name != "budgets"}
        sessions.append(replace(session, facts=facts, summary=summary))
    return replace(history, sessions=tuple(sessions))


class TestBudgets:
    """What is stored of them."""

    def test_come_back_by_pool(self, tmp_path: Path) -> None:
        """With origin and reason."""
        budgets = make_run(tmp_path, steps=3, reserved=GB).budgets

        assert budgets is not None
        assert budgets.device == Budget(Bytes(2 * GB), "given", "given (2.00 GB)")
        assert budgets.host.origin == "found"

    def test_of_an_older_version_come_back_as_one(self, tmp_path: Path) -> None:
        """Every component counts against it."""
        budgets = as_of_old(make_run(tmp_path, steps=3)).budgets

        assert budgets is not None
        assert budgets.of("device.active").limit == budgets.of("host.native").limit == 2 * GB


class TestTerminal:
    """The report as text."""

    def test_a_flat_run_is_said_to_be_flat(self, tmp_path: Path) -> None:
        """Verdict, slope with interval, peak against budget."""
        text = in_terminal(make_run(tmp_path))

        assert text.startswith("flat  Memory stayed flat.")
        assert "0 B/step (95 % interval 0 B/step to 0 B/step)" in text
        assert "300 MB" in text
        assert "budget, given" in text
        assert "No action was needed." in text

    def test_a_leak_is_said_to_leak_and_when_it_will_end(self, tmp_path: Path) -> None:
        """With its rate and its forecast."""
        text = in_terminal(make_run(tmp_path, rate=2e5))

        assert text.startswith("leak  Memory leaks.")
        assert "+200 kB/step" in text
        assert re.search(r"reaches the budget of 2\.00 GB in 7,00\d steps, about 11 min \d\d s", text)

    def test_each_pools_peak_is_told_against_its_own_budget(self, tmp_path: Path) -> None:
        """1.5 GB of the device's 2 GB; 300 MB of the host's, of which 72 GB were found."""
        text = " ".join(in_terminal(make_run(tmp_path, reserved=1_500_000_000)).split())

        assert "budget of the device, given 2.00 GB device's peak against its budget 75.0%" in text
        assert "budget of the host, found 72." in text
        assert "host's peak against its budget 0.4%" in text

    def test_a_run_of_an_older_version_has_one_budget(self, tmp_path: Path) -> None:
        """Host and device each against the same, as it was kept then."""
        text = " ".join(in_terminal(as_of_old(make_run(tmp_path, reserved=1_500_000_000))).split())

        assert "budget, given 2.00 GB peak against budget 75.0%" in text

    def test_a_run_that_was_never_judged_is_shown_too(self, tmp_path: Path) -> None:
        """Killed in its first second."""
        assert "Too few steps to judge." in in_terminal(make_run(tmp_path, steps=3))


class TestHtml:
    """The report as one file."""

    def test_is_small_and_needs_nothing_else(self, tmp_path: Path) -> None:
        """Under 1.5 MB for a run of any length; no address of another file."""
        history = make_run(tmp_path, steps=20_000)
        write_html(history, tmp_path / "report.html")
        text = (tmp_path / "report.html").read_text()

        assert len(text) < 1_500_000
        assert "http" not in text
        assert "<svg" in text

    def test_shows_the_verdict_the_slope_and_the_marks(self, tmp_path: Path) -> None:
        """In words and numbers."""
        text = render_html(make_run(tmp_path, rate=2e5))

        assert "Memory leaks." in text
        assert "+200 kB/step (95 % interval" in text
        assert "evaluation at step 500" in text
        assert "budget 2.00 GB" in text

    def test_draws_each_pools_budget_into_its_own_chart(self, tmp_path: Path) -> None:
        """2 GB in the device's; the host's lies above its chart, and that is said."""
        text = render_html(make_run(tmp_path, reserved=1_500_000_000))
        memory, device = text.split('<svg id="memory"')[1].split('<svg id="device"')

        assert "budget 2.00 GB" in device
        assert "budget 2.00 GB" not in memory.split("</svg>")[0]
        assert "above this chart" in memory.split("</svg>")[0]

    def test_writes_no_name_as_markup(self, tmp_path: Path) -> None:
        """A command line may hold anything."""
        text = render_html(make_run(tmp_path))

        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text

    def test_shows_what_remedies_did(self, tmp_path: Path) -> None:
        """Action, reason, yield, time."""
        make_run(tmp_path)
        from holdwater.store.run_store import RunStore
        from holdwater.timeline.timeline import Timeline

        store = RunStore(tmp_path / "run")
        store.begin(began=0, first_step=1500, facts={})
        store.outcome(Outcome(Step(9), "trim", "memory was short", 123_000_000, 0.0021))
        store.flush(Timeline())
        store.close()

        text = render_html(read_history(tmp_path / "run"))

        assert all(word in text for word in ("trim", "memory was short", "123 MB", "2.1 ms"))

    def test_a_run_without_a_single_step_is_no_error(self, tmp_path: Path) -> None:
        """Killed before the first step."""
        assert "Too few steps to judge." in render_html(make_run(tmp_path, steps=0))

    @pytest.mark.skipif(BROWSER is None, reason="no chromium is installed (apt-get install chromium)")
    def test_opens_in_a_browser_without_an_error(self, tmp_path: Path) -> None:
        """A real one: it finds the verdict and the plot, and its console has nothing to say."""
        write_html(make_run(tmp_path, rate=2e5), tmp_path / "report.html")
        flags = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"),
        )

        done = subprocess.run(
            [str(BROWSER), *flags, (tmp_path / "report.html").as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

        assert 'id="verdict">Memory leaks.' in done.stdout
        assert '<svg id="memory"' in done.stdout
        assert done.stdout.count('class="tip"') == 2  # the script ran, for both charts
        assert "CONSOLE" not in done.stderr


class TestParts:
    """Memory by part."""

    def test_parts_add_up_to_resident_memory_and_children(self, tmp_path: Path) -> None:
        """What fits into no part is shown as unaccounted."""
        parts = memory_parts(make_run(tmp_path, rate=1e5).samples)

        assert np.allclose(parts.total - 40_000_000, 3e8 + 1e5 * parts.steps, rtol=0.05)
        assert parts.areas[0].name == "heap in use"
        assert "unaccounted" in [area.name for area in parts.areas]

    def test_ticks_are_round_numbers_within_the_range(self) -> None:
        """Powers of ten times 1, 2, 2.5 or 5."""
        assert ticks(0, 1050, 5) == [0, 250, 500, 750, 1000]
        assert ticks(5, 5, 5) == [5]
