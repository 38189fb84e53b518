"""Decide what follows when a process has ended: another process that continues the run, or the end of the run."""

import signal
from dataclasses import dataclass, replace
from typing import Literal

from holdwater.budget import Budget, Budgets
from holdwater.errors import ConfigError
from holdwater.exit_codes import FINAL, STOPPED
from holdwater.units import Bytes

RELIEF = 0.9
"""For each process of a run that was killed for want of memory, the budget of the next is multiplied by this."""
LEAST_SHARE = 0.5
"""The budget is never lowered below this share of the original one."""
Cause = Literal["done", "recycled", "killed", "crashed", "hung", "asked to stop", "not resumable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a process ended."""

    status: int
    """As `os.waitstatus_to_exitcode`: negative for a signal."""
    first_step: int
    """The step that it continued from."""
    step: int
    """The last step that it made."""
    recycled: bool = False
    """It ended so that a fresh process continues."""
    hung: bool = False
    """It was ended because it made no step."""
    stopping: bool = False
    """The user has asked it to stop."""
    out_of_memory: bool = False
    """The kernel killed it for want of memory, or it reported that memory ran out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows the end of a process."""

    again: bool
    cause: Cause
    reason: str
    """For people."""
    exit_code: int = 0
    """Of the run, if no process follows."""
    after_out_of_memory: bool = False
    """The next process should use less memory, or be recycled earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConfig:
    """How often a process that dies is started again."""

    without_progress: int = 3
    """Deaths in a row without getting further than before, after which the run ends."""
    in_all: int = 1000
    """Deaths in a run; recycled processes do not count."""

    def __post_init__(self) -> None:
        if self.in_all < 0:
            raise ConfigError(f"max_restarts is {self.in_all}, but a run cannot restart fewer than no times")


class Restarts:
    """Remembers how far each process got: where all die at the same step, starting another one is no help."""

    def __init__(self, config: RestartConfig) -> None:
        self._config = config
        self._furthest = -1
        self._in_vain = 0
        self._left_at: int | None = None
        self._lost = 0
        self.deaths = 0
        """Processes that ended with an error or a signal."""

    def answer(self, end: End) -> Answer:
        """Decide what follows an end."""
        left_at, self._left_at = self._left_at, end.step if end.recycled else None
        if end.recycled:
            self._lost = self._lost + 1 if left_at is not None and end.first_step < left_at else 0
            return self._answer_recycling(end)
        if end.stopping or end.status in FINAL:
            cause: Cause = "asked to stop" if end.stopping else "done"
            code = STOPPED if end.stopping and end.status < 0 else end.status
            return Answer(again=False, cause=cause, reason=f"it ended with {describe(end.status)}", exit_code=code)
        self.deaths += 1
        self._in_vain = 0 if end.step > self._furthest else self._in_vain + 1
        self._furthest = max(self._furthest, end.step)
        cause = "hung" if end.hung else "killed" if end.status < 0 else "crashed"
        how = "it made no step for too long" if end.hung else f"it ended with {describe(end.status)}"
        how += f" after step {end.step}" + (", for memory was short" if end.out_of_memory else "")
        if self._in_vain >= self._config.without_progress:
            how += f"; {self._in_vain + 1} times in a row without getting further: it is not started again"
            return Answer(again=False, cause=cause, reason=how, exit_code=_code(end))
        if self.deaths > self._config.in_all:
            how += f"; it has been started again {self._config.in_all} times already"
            return Answer(again=False, cause=cause, reason=how, exit_code=_code(end))
        return Answer(again=True, cause=cause, reason=how, after_out_of_memory=end.out_of_memory)

    def _answer_recycling(self, end: End) -> Answer:
        """Decide what follows a process that was replaced; without progress the run would never end."""
        if end.step <= end.first_step:
            reason = "it was to be replaced before it had made a step: replacing it frees too little"
            return Answer(again=False, cause="recycled", reason=reason, exit_code=STOPPED)
        if self._lost >= self._config.without_progress:
            reason = (
                f"{self._lost} times in a row a process went on from step {end.first_step}, not from where the "
                "one before it had left: replacing it loses steps"
            )
            return Answer(again=False, cause="recycled", reason=reason, exit_code=STOPPED)
        return Answer(again=True, cause="recycled", reason=f"replaced after step {end.step}")


def relieved(limit: int, deaths: int) -> int:
    """The budget of a process after others of its run were killed for want of memory, in bytes.

    Args:
        limit: The budget, in bytes.
        deaths: How many were killed.
    """
    return int(limit * max(RELIEF**deaths, LEAST_SHARE))


def lowered_budgets(budgets: Budgets, deaths: int) -> Budgets:
    """The budgets of a process after others of its run were killed for want of memory.

    Args:
        budgets: Of the run.
        deaths: How many processes of it were killed for want of memory.
    """

    def less(budget: Budget) -> Budget:
        """A smaller one."""
        return replace(budget, limit=Bytes(relieved(budget.limit, deaths)))

    device = None if budgets.device is None else less(budgets.device)
    return replace(budgets, host=less(budgets.host), device=device)


def describe(status: int) -> str:
    """An exit status, for people."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _code(end: End) -> int:
    """The exit code of the supervisor: that of the process, unless the supervisor ended it because it hung."""
    return STOPPED if end.hung else end.status
