"""Explain a leak of a function that is called again and again: its component, rate, lines and holder.

Objects are counted, the function is called some more times while Python's allocations are recorded, objects are
counted again, and a few calls are traced line by line. That is the window of an observed run, without its watcher.
"""

import gc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from holdwater.attribution.capture import profiler_in_use
from holdwater.attribution.device import DeviceRecord
from holdwater.attribution.explanation import explain
from holdwater.attribution.gain import Gain
from holdwater.attribution.site import Explanation, Growing
from holdwater.attribution.traced import PythonRecord
from holdwater.attribution.tracing import LineTrace
from holdwater.detectors.flatness import CallGrowth
from holdwater.detectors.verdict import Component
from holdwater.observe.agent.counting import Counting
from holdwater.observe.agent.seen import seen
from holdwater.probes.counters import CounterName
from holdwater.probes.devices import mlx_is_on_the_host
from holdwater.testing.call_verdict import CallRate

CALLS, USUAL_CALLS, MOST_CALLS = 24, 120, 2000
"""Calls that are recorded: at least, usually (growth may come at few of them), and at most."""
FEWEST = 6
"""Calls that are recorded where each adds so much that memory might run out."""
RISES = 12
"""Times that a rare growth must come while it is recorded."""
SECONDS, MOST_SECONDS = 3.0, 6.0
"""Seconds that the recorded calls may take at the usual speed, and the least number of them."""
TRACED, MOST_TRACED = 24, 200
"""Calls that are traced line by line: usually, and for rare growth."""
TRACE_SECONDS, MOST_TRACE_SECONDS = 2.0, 10.0
"""Seconds that they may take at the usual speed (three are always made), and after which tracing ends."""
SPARE = 8
"""Calls before that: malloc counts the few free blocks of each size that a thread keeps as in use."""
TENSORS, PYTHON = 0.5, 0.5
"""This part of a growth makes it one of tensors, or of Python's objects."""

MOSTLY = 0.9
"""This part of what was gained makes it all of a kind."""

Growths = dict[CounterName, CallGrowth]
Step = Callable[[], Any]


class Explained(NamedTuple):
    """What is known of a leak."""

    component: Component
    rate: CallRate
    explanation: Explanation
    ends: bool
    """Whether nearly all that grows is held by containers with a maximum length."""


class LeakWindow:
    """Some more calls, in which a leak is recorded and traced."""

    def __init__(
        self, step: Step, growths: Growths, malloc: Callable[[], float] | None, *, beside: Growths | None = None
    ) -> None:
        """Prepare.

        Args:
            step: What is called.
            growths: The counters that grow.
            malloc: Reads malloc's bytes in use; None if this C library does not tell.
            beside: Exact counters that grow by less: the objects that own what grows.
        """
        self._step, self._growths, self._malloc = step, growths, malloc
        self._beside = beside or {}
        self._counting = Counting(tuple)
        self._python, self._device = PythonRecord(), DeviceRecord()
        self._calls = 0
        self._most = MOST_CALLS

    def explain(self, seconds_a_call: float, *, room: float) -> Explained:
        """Make the calls, and explain.

        Args:
            seconds_a_call: Seconds of a call so far.
            room: Bytes that the calls may add.
        """
        wanted = USUAL_CALLS
        smallest = min(growth.rate / _unit(name) for name, growth in self._growths.items())
        if 0 < smallest < 1:  # it does not grow at each call
            wanted = max(USUAL_CALLS, math.ceil(RISES / smallest))
        each = max(seconds_a_call, 1e-9)
        least = max(min(CALLS, int(MOST_SECONDS / each)), FEWEST)
        calls = max(min(wanted, MOST_CALLS, int(SECONDS / each)), least)
        largest = max(
            growth.rate for name, growth in self._growths.items() if name != "blocks" or len(self._growths) == 1
        )
        self._most = max(int(room / max(largest, 1.0)), FEWEST)
        calls = min(calls, self._most)
        frozen = gc.get_freeze_count()
        if frozen:
            gc.unfreeze()  # what is frozen cannot be counted
        try:
            return self._explain(calls, seconds_a_call)
        finally:
            self._python.close()
            self._device.abandon()
            if frozen:
                gc.freeze()

    def _explain(self, calls: int, seconds_a_call: float) -> Explained:
        """The same, with everything switched off afterwards."""
        self._count(compares=False)
        recorded = self._record(calls)
        census = self._count(compares=True)
        found = self._counting.gains.found
        rate, component = self._rate(self._growths, calls), self._component(calls, found)
        seen_here = {
            **seen(self._counting.gains, 0, calls),
            **self._device_seen,
            **self._trace(calls, seconds_a_call),
        }
        self._counting.gains.forget()
        python = recorded if component in {"host.python", "host.native", "host.tensors"} else None
        explanation = explain(seen_here, Growing(component, rate.bytes_per_call), recorded=python)
        if self._beside and explanation.answer != "explained":  # then by the objects that own it
            owners = Growing("host.python", self._rate(self._beside, calls).bytes_per_call)
            explanation = explain(seen_here, owners, recorded=recorded)
        ends = (census is not None and census.room is not None) or _fill_caches(found)
        return Explained(component, rate, explanation, ends=ends)

    def _count(self, *, compares: bool) -> Any:  # noqa: ANN401 - a census, or None
        """Count objects, and compare with the count before."""
        gains = self._counting.gains
        note = gains.compare if compares else gains.remember
        self._counting.begin(note, purpose="end", period=0.0)
        return self._counting.go_on(self._calls, to_the_end=True)

    def _record(self, calls: int) -> dict[str, Any]:
        """Call with Python's and the device's allocations recorded."""
        if "device" in self._growths:
            self._device.start()
        self._python.start()
        self._call(2)  # the tracer's own first allocations, and what one call replaces of the one before
        self._python.mark()
        self._device.mark(max(self._calls, 1))
        self._call(calls - 2)
        recorded = self._python.stop(calls - 2)
        self._device_seen = self._device.stop(self._calls)
        return recorded

    def _call(self, times: int) -> None:
        """Call, and collect what the collector would free anyway."""
        for _ in range(times):
            self._step()
        self._calls += times
        if gc.isenabled():
            gc.collect()

    def _rate(self, growths: Growths, calls: int) -> CallRate:
        """The leak in bytes per call: malloc's bytes, and Python's blocks by the size of those that stayed."""
        for name in ("device", "shared", "rest"):
            if name in growths:
                return CallRate(growths[name].rate, growths[name].low, growths[name].high)
        blocks, malloc = growths.get("blocks"), growths.get("malloc")
        size = self._python.small_size or max(self._python.stayed / max(calls - 2, 1), 1.0)
        scaled = [(blocks, size)] if blocks is not None else []
        parts = scaled + ([(malloc, 1.0)] if malloc is not None else [])
        return CallRate(
            *(
                sum(float(getattr(growth, name)) * scale for growth, scale in parts)
                for name in ("rate", "low", "high")
            )
        )

    def _component(self, calls: int, found: list[Gain]) -> Component:
        """What leaks: tensors by the objects that hold them, Python's objects by what Python allocated."""
        if "device" in self._growths:
            return "host.tensors" if mlx_is_on_the_host() else "device.active"
        if "shared" in self._growths:
            return "host.shared"
        if "rest" in self._growths:
            return "host.native"
        rate = self._rate(self._growths, calls).bytes_per_call
        tensors = sum(gain.weight.tensors for gain in found) / calls
        if tensors >= TENSORS * rate:
            return "host.tensors"
        return "host.python" if self._python.stayed / (calls - 2) >= PYTHON * rate else "host.native"

    def _trace(self, calls: int, seconds_a_call: float) -> dict[str, Any]:
        """Trace a few calls line by line: where containers grow, and where malloc's memory rises."""
        gains = self._counting.gains
        profiler = profiler_in_use()
        for _ in range(min(SPARE, self._most)):
            self._step()
        trace = LineTrace(gains.growing, self._malloc, most_seconds=MOST_TRACE_SECONDS)
        if profiler is not None or not trace.start():
            return {"missing": [f"{profiler or 'another trace function is set'}, so lines were not traced"]}
        wanted = TRACED if calls <= USUAL_CALLS else min(calls, MOST_TRACED)
        traced = max(min(wanted, int(TRACE_SECONDS / max(seconds_a_call, 1e-9)), self._most), 3)
        try:
            for _ in range(traced):
                self._step()
        finally:
            trace.stop()
        indices = [index for index, gain in enumerate(gains.found) if gain.kind == "container"]
        return {
            "lines": {
                str(indices[at]): [[*place, count] for place, count in places.items()]
                for at, places in trace.grown.items()
                if at < len(indices)
            },
            "heap": [[*place, rise, trace.spent[place]] for place, rise in trace.heap.items()],
            "ran": {file: sorted(numbers) for file, numbers in trace.ran.items()},
            "traced_steps": traced,
        }


def _fill_caches(found: list[Gain]) -> bool:
    """Whether nearly all that was gained is held by caches with a maximum length."""
    total = sum(gain.weight.total for gain in found)
    bounded = sum(gain.weight.total for gain in found if any(part.most is not None for part in gain.path))
    return bounded > MOSTLY * total


def _unit(name: CounterName) -> float:
    """The least that a leak at each call adds to a counter."""
    return {"blocks": 1.0, "malloc": 32.0}.get(name, 512.0)
