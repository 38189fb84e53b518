"""The sentence that describes a finding to the user."""

from holdwater.detectors.clocks import Following
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import COUNTED, Component, Rate, VerdictKind
from holdwater.units import format_rate, format_size


def advise(  # noqa: PLR0913 - the parts of a sentence, by name
    kind: VerdictKind,
    component: Component,
    growth: Growth,
    *,
    following: Following | None = None,
    garbage: bool = False,
    threshold: float = 1e6,
    seconds_per_step: float | None = None,
) -> str:
    """Describe a finding.

    Args:
        kind: The verdict.
        component: What grows.
        growth: How it grows.
        following: The clock that it follows.
        garbage: Whether it is garbage that a collection frees.
        threshold: Bytes per step above which remedies may act.
        seconds_per_step: The length of a step if it is a tick of the clock.
    """
    if kind in {"leak", "fragmentation"} and growth.rate is not None:
        what = "free memory that the allocator keeps" if kind == "fragmentation" else "memory"
        if component in COUNTED:
            return _number(component, growth, growth.rate, seconds_per_step)
        if seconds_per_step is not None:
            return f"{what} grows by +{format_size(growth.rate.bytes_per_step / seconds_per_step)}/s"
        text = f"{what} grows by {_speed(growth, growth.rate, following, threshold)}"
        return f"{text}; {_NOT_COLLECTED}" if garbage else text
    if garbage:
        return "memory grows by garbage in reference cycles until the collector runs: gc.collect() frees it"
    return {
        "warming": "memory still rises, and it is not known yet whether it will stop",
        "bounded": f"memory rose by {format_size(growth.risen)} and has stopped",
        "cyclic": "memory rises and falls again",
        "flat": "memory does not grow",
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


def _number(component: Component, growth: Growth, rate: Rate, seconds_per_step: float | None) -> str:
    """The rate of what is counted: open handles, or buffers."""
    what = "buffers on the device" if component == "device.buffers" else "open files or threads"
    if seconds_per_step is not None:
        return f"{what}: {_count(rate.bytes_per_step / seconds_per_step)} more each second"
    return f"{what}: {_count(rate.bytes_per_step)} more each step since step {growth.onset}"


def _count(number: float) -> str:
    """A number of things, for people."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


_NOT_COLLECTED = (
    "it is garbage in reference cycles that a collection frees, but the collector is switched off: "
    "call gc.enable(), or gc.collect() from time to time, or break the cycles"
)
