"""Do forecasts come true? Leaks of many rates and noises are forecast on the way, and run to the limit.

A forecast is made at looks from the first verdict on; the truth is the first step at which a reading reaches the
limit. The rate of a leak wanders a little, as real ones do. One-epoch caches are asked for their level when half
full.
"""

import sys
from multiprocessing import Pool

import numpy as np

from holdwater.detectors.forecast import forecast_limit, forecast_visits
from holdwater.detectors.growth import judge_growth
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step
from recording import Bar, record
from simulated.shapes import GRAIN, Noise
from simulated.simulate import thin

NOISES = (Noise(0.0), Noise(0.5), Noise(0.9), Noise(0.99), Noise(0.0, tails=2.5), Noise(0.9, tails=3.0))
RUNS = 900
PARTS = (0.1, 0.2, 0.35, 0.5, 0.7)
"""The shares of the headroom that are gone when a forecast is asked for."""

Row = tuple[float, float, float, float, float]


def one_leak(seed: int) -> list[Row]:
    """Forecast one leak on its way; share gone, truth, forecast, low, high (steps from then on)."""
    random = np.random.default_rng(seed)
    steps = int(np.exp(random.uniform(np.log(2000), np.log(60_000))))
    noise = NOISES[seed % len(NOISES)]
    height = np.exp(
        random.uniform(np.log(20), np.log(2000))
    )  # of the headroom, in standard deviations of the noise
    steps_of_rate = np.interp(np.arange(steps), np.linspace(0, steps, 40), random.gamma(400, 1 / 400, 40))
    memory = GRAIN * (1000 + height * np.cumsum(steps_of_rate) / steps + noise.draw(steps, random))
    limit = GRAIN * (1000 + 0.97 * height)
    reached = np.flatnonzero(memory >= limit)
    truth = int(reached[0]) if len(reached) else steps
    rows: list[Row] = []
    for part in PARTS:
        at = int(part * steps)
        if at < 200 or at >= truth:
            continue
        growth = judge_growth(*thin(memory, np.arange(at)))
        if growth.kind != "leak":
            continue
        forecast = forecast_limit(growth, growth.level, int(limit), 1.0)
        if forecast is not None:
            rows.append((part, truth - at, forecast.steps, forecast.steps_low, forecast.steps_high))
    return rows


def one_cache(seed: int) -> float:
    """The error of the level that a one-epoch cache is said to settle at, when it is half full."""
    random = np.random.default_rng(seed)
    rows, batch = int(random.integers(500, 20_000)), int(random.integers(4, 33))
    noise = NOISES[seed % len(NOISES)].draw(rows // batch + 1, random)
    per_row, base = np.exp(random.uniform(np.log(20e3), np.log(20e6))), random.uniform(200e6, 4e9)
    scatter = random.uniform(0.0, 0.02) * per_row * rows
    timeline = Timeline()
    for step in range(1, rows // batch // 2):
        level = base + per_row * step * batch + scatter * noise[step]
        timeline.append(Sample(Step(step), float(step), Bytes(int(level)), None, Look(samples_seen=step * batch)))
    found = forecast_visits(timeline.buckets(), float(timeline.peak("samples_seen") or 0), float(rows))
    truth = base + per_row * rows
    return float("inf") if found is None else abs(found[0].settles_at_bytes - truth) / truth


def main() -> bool:
    """Forecast, and compare."""
    with Pool(2) as pool:
        rows = np.array([row for part in pool.map(one_leak, range(RUNS), chunksize=10) for row in part])
        caches = np.array(pool.map(one_cache, range(300), chunksize=10))
    gone, truth, said, low, high = rows.T
    covered = float(((low <= truth) & (truth <= high)).mean())
    finite = np.isfinite(high)
    half = float(np.median(np.where(finite, (high - low) / 2 / said, np.inf)))
    late = gone >= 0.2
    error = float(np.median(np.abs(said[late] - truth[late]) / truth[late]))
    near = float(np.quantile(caches, 0.95))
    bars = {
        f"forecasts whose 90 % interval holds the truth, of {len(rows):,}": Bar(
            f"{covered:.1%}", "85 to 95 %", 0.85 <= covered <= 0.95 and len(rows) >= 1000
        ),
        "half-width of the interval, median": Bar(f"{half:.1%}", "at most 30 %", half <= 0.3),
        "error once a fifth of the headroom is gone, median": Bar(f"{error:.1%}", "at most 10 %", error <= 0.1),
        "level of a half-filled cache, error, 95th percentile of 300": Bar(
            f"{near:.1%}", "at most 10 %", near <= 0.1
        ),
    }
    parts = {
        f"{part:.0%} gone": f"{(((low <= truth) & (truth <= high))[gone == part]).mean():.1%}" for part in PARTS
    }
    return record("forecasts", bars, coverage_by_share_gone=parts)


if __name__ == "__main__":
    sys.exit(not main())
