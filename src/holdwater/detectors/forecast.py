"""Forecast a growth: when it meets the budget, or the level at which it ends."""

import numpy as np

from holdwater.budget import Budgets
from holdwater.detectors.growth import PARTS, Growth
from holdwater.detectors.slope import blocks, fit_slope
from holdwater.detectors.verdict import Component, Forecast, Plateau
from holdwater.timeline.buckets import Buckets, Floats

INTERVAL = 1.645
"""Standard errors on either side of a 90 % interval."""
FIRST_TOUCH = 1.5
"""Approximately how many standard deviations of noise a reading is above the line when it first meets a limit."""


def forecast_limit(growth: Growth, level: float, limit: int, seconds_per_step: float) -> Forecast | None:
    """Extend the line to a limit; None if it does not rise or the limit is reached.

    Args:
        growth: What the series did.
        level: Bytes in use now, in the limited pool.
        limit: Bytes.
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


def forecast_visits(buckets: Buckets, seen: float, total: float) -> tuple[Plateau, float] | None:
    """Extend a growth that follows first visits to the last row.

    Args:
        buckets: The history.
        seen: Rows that were given out.
        total: Rows that there are.

    Returns:
        The level and the bytes per row; None if there are too few readings.
    """
    resident, rows = buckets.lows("resident"), buckets.highs("samples_seen")
    keep = ~np.isnan(resident) & ~np.isnan(rows)
    x, y = rows[keep], resident[keep]
    if len(x) < 8 or x[-1] <= x[0]:
        return None
    settled = (x >= x[0] + 0.2 * (x[-1] - x[0])) & (np.arange(len(x)) <= int(np.argmax(x)))
    line = fit_slope(*blocks(_increasing(x[settled]), y[settled], 48, floor=False))
    first, last = buckets.last_step[keep][settled][0], buckets.last_step[keep][-1]
    per_step = (x[-1] - x[settled][0]) / max(float(last - first), 1.0)
    left = max(total - seen, 0.0)
    plateau = Plateau(float(y[-1]) + line.value * left, left / max(per_step, 1e-9))
    return plateau, line.value


def seconds_per_step(buckets: Buckets) -> float:
    """The mean over the whole history."""
    steps = buckets.last_step[-1] - buckets.first_step[0]
    return float(buckets.seconds[-1] - buckets.seconds[0]) / max(int(steps), 1)


def _increasing(x: Floats) -> Floats:
    """Raise equal neighbours slightly, so that a slope can be fitted."""
    return x + np.arange(len(x)) * 1e-6


def level(buckets: Buckets, component: Component, budgets: Budgets) -> float:
    """What a run holds now of the pool that a component belongs to, in bytes.

    Args:
        buckets: The history.
        component: Of a finding.
        budgets: Of the run.
    """
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
