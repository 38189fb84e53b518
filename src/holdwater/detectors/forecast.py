"""Forecast a growth: when it meets the budget, or the level at which it ends."""

import numpy as np
import numpy.typing as npt

from holdwater.budget import Budgets
from holdwater.detectors.growth import PARTS, Growth
from holdwater.detectors.slope import blocks, fit_slope
from holdwater.detectors.verdict import Component, Forecast, Plateau
from holdwater.timeline.buckets import Buckets, Floats

INTERVAL = 1.645
"""Standard errors on either side of a 90 % interval."""
CLEARLY = 0.5
"""A clock explains growth clearly better than another if it leaves less than this part unexplained."""
FIRST_TOUCH = 1.5
"""Approximately how many standard deviations of noise a reading is above the line when it first meets a limit."""


def forecast_limit(growth: Growth, level: float, limit: int, seconds_per_step: float) -> Forecast | None:
    """Extend the line to a limit; None if it does not rise or the limit is reached.

    Args:
        growth: What the series did.
        level: What is in use now of the limited pool: bytes, or a number of buffers.
        limit: In the same unit.
        seconds_per_step: The speed of the run.
    """
    rate, headroom = growth.rate, limit - level - FIRST_TOUCH * growth.noise
    if rate is None or rate.bytes_per_step <= 0 or headroom <= 0:
        return None
    steps = headroom / rate.bytes_per_step
    error = float(np.hypot((rate.high - rate.low) / (2 * 1.96), _wander(growth, steps)))
    low, high = rate.bytes_per_step - INTERVAL * error, rate.bytes_per_step + INTERVAL * error
    return Forecast(
        limit_bytes=limit,
        steps=steps,
        steps_low=max(headroom - growth.noise, 0.0) / high,
        steps_high=(headroom + FIRST_TOUCH * growth.noise) / low if low > 0 else float("inf"),
        seconds=steps * seconds_per_step,
    )


def _wander(growth: Growth, ahead: float) -> float:
    """The standard deviation between the mean rate of the steps to come and that of the steps so far.

    Rates are not steady: those of the observed parts differ. The standard deviation of a mean is that of the parts
    divided by the root of their number; the observed steps and the steps to come each have theirs.
    """
    if growth.lasted <= 0:
        return 0.0
    parts_ahead = max(ahead / (growth.lasted / PARTS), 0.5)
    return growth.unsteady * float(np.sqrt(1 / PARTS + 1 / parts_ahead))


def forecast_visits(
    buckets: Buckets, seen: float, total: float, *, memory: str = "resident", visits: str = "samples_seen"
) -> tuple[Plateau, float] | None:
    """Extend a growth that follows first visits to the last row.

    Args:
        buckets: The history.
        seen: Rows that were given out.
        total: Rows that there are.
        memory: The series that grows.
        visits: The series that counts first visits.

    Returns:
        The level and the bytes per row; None if there are too few readings.
    """
    x, y, steps = _readings(buckets, memory, visits)
    if len(x) < 8 or x[-1] <= x[0]:
        return None
    settled = _is_settled(x) & (np.arange(len(x)) <= int(np.argmax(x)))
    line = fit_slope(*blocks(_increasing(x[settled]), y[settled], 48, floor=False))
    per_step = (x[-1] - x[settled][0]) / max(float(steps[-1] - steps[settled][0]), 1.0)
    left = max(total - seen, 0.0)
    plateau = Plateau(float(y[-1]) + line.value * left, left / max(per_step, 1e-9))
    return plateau, line.value


def follows_steps(buckets: Buckets, *, memory: str, visits: str) -> bool:
    """Whether steps explain a growth clearly better than first visits do, which become rarer in later epochs.

    Args:
        buckets: The history.
        memory: The series that grows.
        visits: The series that counts first visits.
    """
    x, y, steps = _readings(buckets, memory, visits)
    settled = _is_settled(x)
    if settled.sum() < 8:
        return False
    places, memory_then = blocks(steps[settled], y[settled], 48, floor=False)
    visits_then = np.interp(places, steps[settled], x[settled])
    return _unexplained(memory_then, places) < CLEARLY * _unexplained(memory_then, visits_then)


def _readings(buckets: Buckets, memory: str, visits: str) -> tuple[Floats, Floats, Floats]:
    """First visits, bytes and step of each bucket in which both were read."""
    y, x = buckets.lows(memory), buckets.highs(visits)
    keep = ~np.isnan(y) & ~np.isnan(x)
    return x[keep], y[keep], buckets.last_step[keep].astype(np.float64)


def _is_settled(x: Floats) -> npt.NDArray[np.bool_]:
    """Which readings come after the first fifth of the visits: before it the program still starts."""
    return np.asarray(x >= x[0] + 0.2 * (x[-1] - x[0])) if len(x) else np.zeros(0, bool)


def _unexplained(y: Floats, by: Floats) -> float:
    """The sum of squares that a straight line leaves."""
    y, by = y - y.mean(), by - by.mean()
    slope = float(y @ by) / max(float(by @ by), 1e-300)
    return float(np.sum((y - slope * by) ** 2))


def seconds_per_step(buckets: Buckets) -> float:
    """The mean over the whole history."""
    steps = buckets.last_step[-1] - buckets.first_step[0]
    return float(buckets.seconds[-1] - buckets.seconds[0]) / max(int(steps), 1)


def _increasing(x: Floats) -> Floats:
    """Raise equal neighbours slightly, so that a slope can be fitted."""
    return x + np.arange(len(x)) * 1e-6


def level(buckets: Buckets, component: Component, budgets: Budgets) -> float:
    """What a run holds now of the pool that a component belongs to, in bytes; of buffers, their number.

    Args:
        buckets: The history.
        component: Of a finding.
        budgets: Of the run.
    """
    if component == "device.buffers":
        return newest(buckets, "device_buffers")
    if budgets.unified and buckets.seen("footprint"):
        return newest(buckets, "footprint")
    of_device = component.startswith("device.")
    series = ["device_reserved"] if of_device and not budgets.unified else ["resident"]
    if budgets.unified:
        series.append("device_reserved")
    if component == "device.other":
        series.append("device_other")
    return sum(newest(buckets, name) for name in series)


def newest(buckets: Buckets, series: str) -> float:
    """The newest reading of a series, in its own unit; 0 if there is none."""
    lows = buckets.lows(series)
    seen = lows[~np.isnan(lows)]
    return float(seen[-1]) if len(seen) else 0.0
