"""Show the progress of a run: one live line in a terminal, plain lines elsewhere."""

import math
import sys
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from holdwater.clock import format_duration
from holdwater.guard.guard import Guard
from holdwater.units import format_size

BAR = 16
"""Columns of the progress bar."""
TIGHT = 0.8
"""The share of its budget above which the host's memory is shown next to the device's."""
SHARE_OF_TIME = 0.002
"""Drawing takes at most this part of the time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run after a step."""

    step: int
    loss: float
    learning_rate: float
    guard: Guard
    pictures: int | None = None
    """How many this process has learned from; None for a model of text."""


class Screen(Protocol):
    """Shows progress, and prints messages."""

    def show(self, progress: Progress) -> None:
        """Record a step; draw if it is due."""
        ...

    def say(self, line: str) -> None:
        """Print a line that stays."""
        ...

    def leave_out(self, seconds: float) -> None:
        """Leave the time of an evaluation out of the speed and of the time that is left."""
        ...

    def close(self, *, goes_on: bool = False) -> None:
        """Draw a last time, unless another process continues at once, and restore the terminal."""
        ...


class Speed:
    """Loss and speed over the recent steps."""

    def __init__(
        self, *, first_step: int, steps: int, tokens_in_step: int, began: tuple[int, float] | None = None
    ) -> None:
        """Begin.

        Args:
            first_step: The step that this process continues from.
            steps: The last step.
            tokens_in_step: Tokens that a step learns from.
            began: Step and time (`time.perf_counter`) at which the run's first process began; None for this one.
        """
        now = time.perf_counter()
        self.steps = steps
        self._tokens_in_step = tokens_in_step
        self._began = now if began is None else began[1]
        self._first_step, self._working_since = first_step, now
        self._mark = (first_step, now)
        self._pictures = 0
        self.average = float("nan")
        """Mean of the loss over about 100 steps."""
        self._slow = float("nan")
        self.rate = 0.0
        """Steps per second since the line was last drawn."""
        self.pictures_per_second: float | None = None
        """None for a model of text."""

    def note(self, loss: float) -> None:
        """Add the loss of one step; the mean leaves out those that are not finite."""
        if not math.isfinite(loss):
            return
        if self.average != self.average:
            self.average = self._slow = loss
        self.average += 0.02 * (loss - self.average)
        self._slow += 0.005 * (loss - self._slow)

    @property
    def trend(self) -> str:
        """The trend of the loss."""
        change = self.average - self._slow
        return "→" if abs(change) < 0.002 * abs(self._slow) else "↓" if change < 0 else "↑"

    def measure(self, step: int, pictures: int | None = None) -> None:
        """Measure the speed since the last call.

        Args:
            step: The last one that was taken.
            pictures: How many this process has learned from; None for a model of text.
        """
        now = time.perf_counter()
        before, then = self._mark
        if now > then and step > before:
            self.rate = (step - before) / (now - then)
            if pictures is not None:
                self.pictures_per_second = (pictures - self._pictures) / (now - then)
        self._mark, self._pictures = (step, now), pictures or 0

    def leave_out(self, seconds: float) -> None:
        """Leave the time of an evaluation out of the speed and of the time that is left.

        Args:
            seconds: That have just passed.
        """
        step, then = self._mark
        self._mark = (step, then + seconds)
        self._working_since += seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the run began or was resumed."""
        return time.perf_counter() - self._began

    def left(self, step: int) -> float:
        """Seconds that the rest of the run will take without evaluations, at the mean speed of this process."""
        done = step - self._first_step
        return (self.steps - step) * (time.perf_counter() - self._working_since) / done if done else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second."""
        return self.rate * self._tokens_in_step


def format_throughput(pace: Speed) -> str:
    """Write tokens per second, and pictures per second where there are some.

    Args:
        pace: As it was measured.
    """
    tokens = f"{pace.tokens_per_second:,.0f} tokens/s"
    return tokens if pace.pictures_per_second is None else f"{tokens}  {pace.pictures_per_second:.1f} pictures/s"


def format_pace(rate: float) -> str:
    """Write steps per second, or seconds per step where those are slower.

    Args:
        rate: Steps per second.
    """
    if 0 < rate < 1:
        return f"{1 / rate:.1f} s/step"
    return f"{rate:.{0 if rate >= 10 else 1}f} steps/s"


def memory_against_budget(guard: Guard) -> str:
    """Memory in use and budget of the tensors' pool; also the host's, with a device, if that is short."""
    in_use, budgets = guard.observer.in_use(), guard.budgets
    main = sum(in_use) if budgets.unified else in_use.host if budgets.device is None else in_use.device
    shown = f"{format_size(main)} / {format_size(budgets.main.limit)}"
    limit = budgets.host.limit
    if budgets.device is None or in_use.host <= TIGHT * limit:
        return shown
    return f"{shown}, host {format_size(in_use.host)} / {format_size(limit)}"


class LiveScreen:
    """One line that is drawn again and again in place."""

    def __init__(self, pace: Speed, console: Console) -> None:
        self._pace = pace
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)
        self._live.start()
        self._next = 0.0
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Record a step; draw if it is due."""
        self._pace.note(progress.loss)
        self._last = progress
        now = time.perf_counter()
        if now >= self._next:
            self._draw(progress)
            cost = time.perf_counter() - now
            self._next = now + max(0.25, cost / SHARE_OF_TIME)

    def say(self, line: str) -> None:
        """Print a line above the live one."""
        self._live.console.print(line, markup=False, highlight=False)

    def leave_out(self, seconds: float) -> None:
        """Leave the time of an evaluation out of the speed and of the time that is left."""
        self._pace.leave_out(seconds)

    def close(self, *, goes_on: bool = False) -> None:
        """Draw a last time, unless another process continues at once, and restore the terminal."""
        if self._last is not None and not goes_on:
            self._draw(self._last)
        self._live.transient = goes_on
        self._live.stop()

    def _draw(self, progress: Progress) -> None:
        """Draw the line; a narrow terminal sees the most important parts."""
        pace = self._pace
        pace.measure(progress.step, progress.pictures)
        parts: list[str | ProgressBar] = [
            format_duration(pace.elapsed),
            ProgressBar(total=pace.steps, completed=progress.step, width=BAR),
            f"[bold]{progress.step:,}[/]/{pace.steps:,}",
            f"mem [bold]{memory_against_budget(progress.guard)}[/]",
            f"loss [bold]{progress.loss:.3f}[/] avg {pace.average:.3f} {pace.trend}",
            f"left {format_duration(pace.left(progress.step))}",
            format_pace(pace.rate),
            format_throughput(pace).replace("tokens", "tok"),
            f"lr {progress.learning_rate:.1e}",
        ]
        line = Table.grid(padding=(0, 2))
        line.add_row(*parts[: _fitting(parts, self._live.console.width)])
        self._live.update(line, refresh=True)


def _fitting(parts: list[str | ProgressBar], columns: int) -> int:
    """How many of the parts fit into a line; the first three are shown in any case."""
    used = 0
    for count, part in enumerate(parts):
        used += 2 + (BAR if isinstance(part, ProgressBar) else Text.from_markup(part).cell_len)
        if used > columns + 2:
            return max(count, 3)
    return len(parts)


class PlainScreen:
    """Plain lines at growing intervals, for logs and pipes."""

    def __init__(self, pace: Speed) -> None:
        self._pace = pace
        self._next = 5.0 if pace.elapsed < 5.0 else pace.elapsed + min(max(5.0, 0.2 * pace.elapsed), 300.0)
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Record a step; print if it is due."""
        self._pace.note(progress.loss)
        self._last = progress
        if self._pace.elapsed >= self._next:
            self._print(progress)
            self._next = self._pace.elapsed + min(max(5.0, 0.2 * self._pace.elapsed), 300.0)

    def say(self, line: str) -> None:
        """Print a line."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def leave_out(self, seconds: float) -> None:
        """Leave the time of an evaluation out of the speed and of the time that is left."""
        self._pace.leave_out(seconds)

    def close(self, *, goes_on: bool = False) -> None:
        """Print where the run ended."""
        if self._last is not None and not goes_on:
            self._print(self._last)

    def _print(self, progress: Progress) -> None:
        """Print the progress."""
        pace = self._pace
        pace.measure(progress.step, progress.pictures)
        self.say(
            f"{format_duration(pace.elapsed)}  step {progress.step:,}/{pace.steps:,}  "
            f"loss {progress.loss:.3f} (average {pace.average:.3f} {pace.trend})  "
            f"lr {progress.learning_rate:.2e}  {format_pace(pace.rate)}  {format_throughput(pace)}  "
            f"left {format_duration(pace.left(progress.step))}  memory {memory_against_budget(progress.guard)}"
        )


def open_screen(pace: Speed) -> Screen:
    """A live line where standard output is a terminal, plain lines elsewhere."""
    console = Console()
    return LiveScreen(pace, console) if console.is_terminal else PlainScreen(pace)
