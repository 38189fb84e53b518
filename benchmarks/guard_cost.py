"""What the guard costs a step of a real loop, timed around its own hook, beside its own account.

Every step is timed, those at which the guard does not look too; what the timing itself costs is measured
with an empty hook and stated as the noise floor.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from holdwater.config import gather
from holdwater.guard.guard import Guard
from holdwater.train.run import train
from holdwater.train.run_folder import find_run_folder
from recording import Bar, record

STEPS = 8000


def main() -> bool:
    """Train with a timer around the hook."""
    times: list[float] = []
    empty: list[float] = []
    plain_step, plain_enter = Guard.step, Guard.__enter__
    started: list[float] = []
    span = [0.0, 0.0]

    def timed_step(guard: Guard, *, loss: float | None = None) -> None:
        began = time.perf_counter()
        plain_step(guard, loss=loss)
        middle = time.perf_counter()
        empty.append(time.perf_counter() - middle)
        times.append(middle - began)
        span[0], span[1] = span[0] or began, middle

    def timed_enter(guard: Guard) -> Guard:
        began = time.perf_counter()
        entered = plain_enter(guard)
        started.append(time.perf_counter() - began)
        return entered

    Guard.step, Guard.__enter__ = timed_step, timed_enter  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = gather(flags={"steps": str(STEPS)}, environment={})
        result = train(config, find_run_folder(Path(folder) / "run", None), command=["benchmark"])
    hook = 1e6 * np.array(times)
    share = sum(times) / (span[1] - span[0])
    mean, p99 = float(hook.mean()), float(np.quantile(hook, 0.99))
    bars = {
        "cost of the guard a step, mean": Bar(f"{mean:.1f} µs", "at most 25 µs", mean <= 25),
        "cost of the guard a step, 99th percentile": Bar(f"{p99:.0f} µs", "at most 250 µs", p99 <= 250),
        "cost of the guard, share of the run": Bar(f"{share:.2%}", "at most 0.5 %", share <= 0.005),
        "start-up of the guard": Bar(f"{1000 * started[0]:.0f} ms", "at most 300 ms", started[0] <= 0.3),
    }
    return record(
        "guard_cost",
        bars,
        steps=STEPS,
        median_us=float(np.median(hook)),
        largest_us=float(hook.max()),
        empty_hook_mean_us=1e6 * float(np.mean(empty)),
        own_account=result.summary["overhead"],
    )


if __name__ == "__main__":
    sys.exit(not main())
