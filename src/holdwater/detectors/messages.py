"""What a growth is called, in a sentence for people."""

from holdwater.detectors.clocks import Following
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import Component, Rate, VerdictKind
from holdwater.units import format_rate, format_size


def advise(  # noqa: PLR0913 - what a sentence is made of, by name
    kind: VerdictKind,
    component: Component,
    growth: Growth,
    *,
    following: Following | None = None,
    garbage: bool = False,
    threshold: float = 1e6,
    seconds_per_step: float | None = None,
) -> str:
    """Say what was found.

    Args:
        kind: The verdict.
        component: What grows.
        growth: How it grows.
        following: The clock that it follows.
        garbage: It is garbage that a collection frees.
        threshold: Bytes per step above which remedies may act.
        seconds_per_step: Where a step is a tick of the clock: its length.
    """
    if kind in {"leak", "fragmentation"} and growth.rate is not None:
        what = "free memory that the allocator keeps" if kind == "fragmentation" else "memory"
        if component == "process.handles":
            return _handles(growth, growth.rate, seconds_per_step)
        if seconds_per_step is not None:
            return f"{what} grows by +{format_size(growth.rate.bytes_per_step / seconds_per_step)}/s"
        text = f"{what} grows by {_speed(growth, growth.rate, following, threshold)}"
        return f"{text}; {_NOT_COLLECTED}" if garbage else text
    if garbage:
        return "memory grows by garbage in cycles that waits for the collector: gc.collect() frees it"
    return {
        "warming": "memory still rises, and it cannot be told yet whether it will stop",
        "bounded": f"memory rose by {format_size(growth.risen)} and has stopped",
        "cyclic": "memory rises and falls again: it comes and goes",
        "flat": "memory stays where it is",
    }.get(kind, "too few steps to judge")


def _speed(growth: Growth, rate: Rate, following: Following | None, threshold: float) -> str:
    """How fast, by what clock, and since when."""
    by = ""
    if following is not None and following.every_steps:
        by = f" ({format_size(following.per_event)} about every {following.every_steps} steps)"
    elif following is not None and following.clock != "step":
        each = "second" if following.clock == "seconds" else following.clock
        by = f" ({format_size(following.per_event)} each {each})"
    above = "above" if rate.bytes_per_step >= threshold else "below"
    speed = format_rate(rate.bytes_per_step)
    return f"{speed}{by} since step {growth.onset}, {above} the threshold of {format_rate(threshold)}"


def _handles(growth: Growth, rate: Rate, seconds_per_step: float | None) -> str:
    """Handles are counted, not weighed."""
    if seconds_per_step is not None:
        return f"open files or threads: {rate.bytes_per_step / seconds_per_step:.3g} more each second"
    return f"open files or threads: {rate.bytes_per_step:.3g} more each step since step {growth.onset}"


_NOT_COLLECTED = (
    "it is garbage in cycles that a collection frees, but the collector is switched off: "
    "call gc.enable(), or gc.collect() now and then, or break the cycles"
)
