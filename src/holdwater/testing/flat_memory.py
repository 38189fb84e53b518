"""Test whether a function leaks: call it until that can be told, and explain what grows.

Flat is told as soon as a leak of more than 512 bytes a call in the exact counters can be excluded, at the earliest
after a second. A leak is told only after at least 3,000 calls or 35 seconds of growth that keeps its pace (a cache
that fills looks the same for as long as it fills); with a given number of calls, at their end.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from holdwater.detectors.flatness import FEWEST_READINGS, judge_calls
from holdwater.errors import ConfigError
from holdwater.probes.counters import COUNTERS, Counter, CounterName
from holdwater.probes.machine import read_machine
from holdwater.signal_errors import not_the_scripts
from holdwater.testing.call_verdict import CallVerdict, CallVerdictKind
from holdwater.testing.explained_leak import Growths, LeakWindow
from holdwater.testing.repeated_calls import RepeatedCalls

SECONDS = 45.0
"""The most seconds of calls, if none are given; explaining comes after."""
TARGET, ENOUGH = 512.0, 1024.0
"""Bytes a call: the test goes on until a larger leak is excluded; the second is enough after `PATIENCE`."""
PATIENCE = 20.0
ELSEWHERE, ELSEWHERE_SECONDS = 1024.0, 5.0
"""The same for memory that libraries map themselves: bytes a call, or seconds after which it is only stated."""
LEAST_SECONDS, LEAST_CALLS, LEAST_CALLS_SECONDS = 1.0, 256, 3.0
"""A flat verdict comes at the earliest after this, unless calls take long."""
LEAK_SECONDS, LEAK_CALLS, LEAK_CALLS_SECONDS = 15.0, 3000, 35.0
"""A leak's, likewise."""
ROOM, ROOM_SHARE, MOST = float(1 << 30), 0.1, 3.0
"""Bytes by which memory may grow before a leak is told at once, or this part of what is available; this many times
as much ends the test in any case: the test itself must not run out of memory."""
MORE = 1.25
"""Its growth is a leak of its own if it is this many times what the exact counters explain at most."""
EXACT: dict[CounterName, int] = {counter.name: counter.size for counter in COUNTERS if counter.exact}
"""The most bytes that one unit of each exact counter stands for."""
WARM_CALLS = 800
"""Calls after which a library's tables count as filled: in fewer, growth must be larger to be a leak."""
LOOK_AGAIN = 1.15
"""Each look has this many times the readings, or calls, of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How long a function is called."""

    steps: int | None = None
    """The most calls; None calls until it can be told."""
    seconds: float = SECONDS
    """The most seconds."""

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: One cannot be kept.
        """
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise ConfigError(
                f"flat_memory: steps is {self.steps!r}, but it is a number of calls; write steps=3000, or nothing"
            )
        if type(self.seconds) not in {int, float} or not self.seconds > 0:
            raise ConfigError(
                f"flat_memory: seconds is {self.seconds!r}, but calls take time; write seconds=60, or leave it out"
            )


def check_step(step: object, limits: Mapping[str, object]) -> None:
    """Check what a test hands over, before anything is called.

    Args:
        step: The function.
        limits: By name.

    Raises:
        ConfigError: The function cannot be called so, or a limit is unknown.
    """
    names = [field.name for field in fields(CallLimits)]
    for name in limits:
        if name not in names:
            raise ConfigError(f"flat_memory: {name} is no limit of it; write {' or '.join(names)}")
    if not callable(step):
        raise ConfigError(f"flat_memory: {step!r} cannot be called; write the function itself, without brackets")
    if inspect.iscoroutinefunction(step):
        raise ConfigError(
            f"flat_memory: {step!r} is a coroutine function, and calling it runs nothing; "
            "write a step that runs it, such as lambda: asyncio.run(step())"
        )
    CallLimits(**limits)  # type: ignore[arg-type] # checks the values


def judge_function(
    step: Callable[[], Any], limits: CallLimits | None = None, *, between: Callable[[], None] | None = None
) -> CallVerdict:
    """Call a function until it can be told whether it leaks.

    Args:
        step: Called without arguments; what it returns is dropped.
        limits: How long.
        between: Called before each reading of memory.

    """
    limits = limits or CallLimits()
    with RepeatedCalls(step, steps=limits.steps, between=between) as calls:
        return _Test(calls, limits, step).run()


class _Test:
    """One test, from the first call to the verdict."""

    def __init__(self, calls: RepeatedCalls, limits: CallLimits, step: Callable[[], Any]) -> None:
        self._calls, self._limits, self._step = calls, limits, step
        self._growths: Growths = {}
        self._room = min(ROOM, ROOM_SHARE * read_machine().available)

    def run(self) -> CallVerdict:
        """Call, look, and decide."""
        calls, readings, number = self._calls, 0.0, 0.0
        while True:
            calls.go_on()
            over = calls.done or calls.seconds >= self._limits.seconds or calls.grown >= MOST * self._room
            due = calls.readings >= readings or calls.calls >= number
            if calls.readings >= FEWEST_READINGS and (due or over):
                readings, number = LOOK_AGAIN * calls.readings, LOOK_AGAIN * calls.calls
                calls.without_us(self._look)
                kind = self._decide(over=over)
                if kind is not None:
                    return self._verdict(kind)
            elif over:
                return self._verdict("unknown")

    def _look(self) -> None:
        """Judge each counter."""
        self._growths = {}
        for index, counter in enumerate(COUNTERS):
            series = self._calls.series(index)
            if series is not None:
                growth = judge_calls(*series, least=counter.least)
                warming = self._calls.calls < WARM_CALLS and growth.rise < counter.warming
                self._growths[counter.name] = replace(growth, grows=growth.grows and not warming)

    def _decide(self, *, over: bool) -> CallVerdictKind | None:
        """The verdict; None if more calls are needed."""
        calls, seconds = self._calls.calls, self._calls.seconds
        if self._leaking():
            long = seconds >= LEAK_SECONDS and (calls >= LEAK_CALLS or seconds >= LEAK_CALLS_SECONDS)
            return "leak" if over or long or self._calls.grown >= self._room else None
        if over:
            return "settling" if self._settles else "flat"
        if seconds < LEAST_SECONDS or (calls < LEAST_CALLS and seconds < LEAST_CALLS_SECONDS):
            return None
        missed, elsewhere = self._missed(exact=True), self._missed(exact=False)
        if elsewhere > ELSEWHERE and seconds < ELSEWHERE_SECONDS:
            return None
        enough = ENOUGH if seconds >= PATIENCE else TARGET
        return "flat" if missed <= enough else None

    def _leaking(self) -> Growths:
        """The counters that grow: the exact ones, or another if that grows by more than they explain."""
        growing = {name: growth for name, growth in self._growths.items() if growth.grows}
        exact = {name: growth for name, growth in growing.items() if name in EXACT}
        if "device" in exact:
            return {"device": exact["device"]}
        counted = sum(EXACT[name] * growth.rate for name, growth in exact.items())
        for name, growth in growing.items():
            if name not in EXACT and growth.rate > MORE * counted:
                return {name: growth}
        return exact

    @property
    def _settles(self) -> bool:
        """Whether an exact counter still rises, though not as a leak does."""
        known = ((counter, self._growths.get(counter.name)) for counter in COUNTERS if counter.exact)
        return any(
            growth is not None and growth.rises and growth.low > 0 and counter.size * growth.rate > TARGET
            for counter, growth in known
        )

    def _missed(self, *, exact: bool) -> float:
        """The largest leak that is still possible, in bytes a call."""
        return max((self._bytes(counter) for counter in COUNTERS if counter.exact == exact), default=0.0)

    def _bytes(self, counter: Counter) -> float:
        """The largest leak that one counter leaves possible; 0 if it is not there."""
        growth = self._growths.get(counter.name)
        return 0.0 if growth is None else counter.size * growth.missed

    def _verdict(self, kind: CallVerdictKind) -> CallVerdict:
        """Put the verdict together; a leak is explained first."""
        calls = self._calls
        verdict = CallVerdict(
            kind=kind,
            calls=calls.calls,
            seconds=calls.seconds,
            missed=self._missed(exact=True),
            missed_elsewhere=self._missed(exact=False),
        )
        return self._explained(verdict) if kind == "leak" else verdict

    def _explained(self, verdict: CallVerdict) -> CallVerdict:
        """A leak with its explanation; where what grows has a maximum length, it is none."""
        calls, leaking = self._calls, self._leaking()
        calls.unfreeze()
        beside = {
            name: growth
            for name, growth in self._growths.items()
            if growth.grows and name in {*EXACT} - {*leaking}
        }
        window = LeakWindow(self._step, leaking, calls.counters.malloc, beside=beside)
        try:
            found = window.explain(calls.seconds_a_call, room=self._room)
        except not_the_scripts(Exception) as error:  # it leaks, whatever the calls after that do
            return replace(verdict, unexplained=f"the calls after the verdict raised {error!r}")
        if found.ends:
            return replace(verdict, kind="settling")
        return replace(verdict, component=found.component, rate=found.rate, explanation=found.explanation)
