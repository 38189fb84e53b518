"""The memory that a million steps take in a timeline, with their true peak; the guard's own memory meanwhile."""

import sys
import tracemalloc

import numpy as np

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig
from holdwater.detectors.slope import blocks, fit_slope
from holdwater.guard.core import CoreConfig, GuardCore
from holdwater.probes.host import Resident
from holdwater.testing import make_sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes
from recording import Bar, record

STEPS = 1_000_000


def main() -> bool:
    """Fill a timeline, then a guard's core."""
    random = np.random.default_rng(0)
    sizes = random.normal(3e8, 1e6, STEPS)
    peak_at = int(random.integers(STEPS))
    sizes[peak_at] = 9e8
    tracemalloc.start()
    timeline = Timeline()
    for step in range(1, STEPS + 1):
        timeline.append(make_sample(step, sizes[step - 1], available=int(5e9) if step % 100 == 0 else None))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = timeline.peak("resident")

    headroom = HeadroomConfig(waiting_below=Bytes(2 * 10**9), stopping_below=Bytes(10**9))
    core = GuardCore(Budgets(Budget(Bytes(10**10), "given", "")), CoreConfig(headroom=headroom))
    probe = Resident()
    steps, resident = [], []
    for step in range(1, STEPS + 1):
        core.observe(make_sample(step, sizes[step - 1], available=int(5e9) if step % 100 == 0 else None))
        if step % 2000 == 0:
            steps.append(float(step))
            resident.append(float(probe.read()))
    settled = len(steps) // 5
    line = fit_slope(*blocks(np.array(steps[settled:]), np.array(resident[settled:]), 80, floor=True))
    growth = line.value * 0.8 * STEPS
    bars = {
        "history of a million steps in memory": Bar(f"{most / 1e6:.1f} MB", "under 64 MB", most < 64e6),
        "its peak, one step of 900 MB among them": Bar(
            "not found" if found is None else f"{found / 1e6:.0f} MB", "900 MB", found == 9e8
        ),
        "growth of the guard itself over 800,000 steps": Bar(
            f"{growth / 1e3:.0f} kB", "under 256 kB", growth < 256_000
        ),
    }
    return record(
        "million_steps",
        bars,
        held_bytes=held,
        slope_bytes_per_step=line.value,
        interval=line.interval(0.95),
        verdict=core.verdict.kind,
    )


if __name__ == "__main__":
    sys.exit(not main())
