"""False alarms and power of the judgement on simulated runs of known truth, read at the pace of real ones.

Between two looks the verdict stands, so the looks at growing intervals are all that there is to see. The oracle
sees the same readings, knows the noise and the onset, and looks once, at the end, at the same chance of a false
alarm (0.001).
"""

import sys
from collections import Counter, defaultdict
from multiprocessing import Pool
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import binomtest

from recording import Bar, record
from simulated.shapes import HEALTHY, NOISES, Noise, healthy, leak, oracle_score
from simulated.simulate import look_all_the_way, read_steps

SHORT, SHORT_RUNS = 10_000, 3024
LONG, LONG_RUNS = 1_000_000, 400
SCORES = (4.4, 5.5, 7.0, 10.0, 14.0, 20.0)
"""Rates of the leaks, as standard errors that the oracle sees: its power is 0.90, 0.99 and more."""
ONSETS = (0.0, 0.25, 0.5)
POWER_NOISES = (Noise(0.0), Noise(0.5), Noise(0.9), Noise(0.99), Noise(0.0, tails=2.5), Noise(0.999))
POWER_RUNS = 40
ALPHA = 0.001

Job = tuple[Any, ...]


def judge_healthy(job: Job) -> tuple[str, Noise, int | None, str]:
    """One healthy run."""
    kind, noise, steps, seed = job
    random = np.random.default_rng(seed)
    outcome = look_all_the_way(healthy(kind, steps, noise, random), seconds_per_step=_pace(random))
    return kind, noise, outcome.said_leak_at, outcome.final


def judge_leak(job: Job) -> tuple[float, float, Noise, int | None]:
    """One run that leaks."""
    score, onset, noise, seed = job
    begin = int(onset * SHORT)
    random = np.random.default_rng(seed)
    pace = _pace(random)
    rate = score / oracle_score(begin, SHORT, noise, read_steps(SHORT, pace))
    outcome = look_all_the_way(leak(rate, begin, SHORT, noise, random), seconds_per_step=pace)
    return score, onset, noise, outcome.said_leak_at


def main() -> bool:
    """Run all of it on two processes (about ten minutes)."""
    with Pool(2) as pool:
        bars: dict[str, Bar] = {}
        numbers: dict[str, Any] = {}
        for name, steps, runs, most in (("10,000", SHORT, SHORT_RUNS, 5), ("a million", LONG, LONG_RUNS, 1)):
            cells = [(kind, noise) for kind in HEALTHY for noise in NOISES]
            jobs = [(*cells[run % len(cells)], steps, 10**6 + run) for run in range(runs)]
            found = pool.map(judge_healthy, jobs, chunksize=4)
            bar, numbers[f"healthy runs of {name} steps"] = _alarms(found, most if steps == SHORT else runs / 400)
            bars[f"false alarms in {runs:,} healthy runs of {name} steps"] = bar
        leaks = [
            (score, onset, noise, 10**7 + run)
            for score in SCORES for onset in ONSETS for noise in POWER_NOISES for run in range(POWER_RUNS)
        ]  # fmt: skip
        bar, numbers["power"] = _power(pool.map(judge_leak, leaks, chunksize=20))
    bars["power against the oracle, worst cell where the oracle's is 0.9 or more"] = bar
    return record("simulation", bars, **numbers)


def _alarms(found: list[tuple[str, Noise, int | None, str]], most: float) -> tuple[Bar, dict[str, Any]]:
    """Count false alarms, by shape and by noise."""
    alarms = [row for row in found if row[2] is not None]
    low, high = binomtest(len(alarms), len(found)).proportion_ci(method="wilson")
    text = f"{len(alarms)} ({100 * low:.2f} to {100 * high:.2f} %)"
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, _, _, final in found:
        kinds[kind][final] += 1
    facts = {
        "by shape": dict(Counter(kind for kind, *_ in alarms)),
        "by noise": dict(Counter(_name(noise) for _, noise, *_ in alarms)),
        "said at step": sorted(int(row[2] or 0) for row in alarms),
        "verdict at the end": {kind: dict(count) for kind, count in kinds.items()},
    }
    return Bar(text, f"at most {most:g}", len(alarms) <= most), facts


def _power(found: list[tuple[float, float, Noise, int | None]]) -> tuple[Bar, list[dict[str, Any]]]:
    """Compare with the oracle cell by cell."""
    cells: dict[tuple[float, float, Noise], list[int | None]] = defaultdict(list)
    for score, onset, noise, said in found:
        cells[score, onset, noise].append(said)
    rows: list[dict[str, Any]] = []
    for (score, onset, noise), all_said in cells.items():
        oracle = NormalDist().cdf(score - NormalDist().inv_cdf(1 - ALPHA))
        hits = [at for at in all_said if at is not None]
        delay = float(np.median(hits)) - onset * SHORT if hits else None
        share = len(hits) / len(all_said)
        rows.append({
            "noise": _name(noise), "onset": onset, "oracle's standard errors": score,
            "oracle's power": round(oracle, 3),
            "power": round(share, 3), "ratio": round(share / oracle, 2), "median delay in steps": delay,
        })  # fmt: skip
    counted = [row for row in rows if row["oracle's power"] >= 0.9]
    worst = min(counted, key=lambda row: row["ratio"])
    enough = sum(row["ratio"] >= 0.8 for row in counted)
    where = f"{worst['noise']}, onset {worst['onset']}"
    text = f"{worst['ratio']} ({where}); {enough} of {len(counted)} cells at 0.8 or more"
    return Bar(text, "at least 0.8", worst["ratio"] >= 0.8), rows


def _pace(random: np.random.Generator) -> float:
    """Seconds per step, from 0.1 ms to 1 s: how unevenly a run is read depends on it."""
    return float(10 ** random.uniform(-4, 0))


def _name(noise: Noise) -> str:
    """A noise in words."""
    tails = "normal" if noise.tails is None else f"t{noise.tails:g}"
    return f"correlation {noise.correlation:g}, {tails}"


if __name__ == "__main__":
    sys.exit(not main())
