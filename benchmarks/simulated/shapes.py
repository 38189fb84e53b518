"""Seeded curves of memory whose truth is known: healthy ones of many kinds, and leaks.

The unit is the noise: one standard deviation of a step's reading. A healthy curve settles within the run, or
shows what drives it: garbage that a collection would free, or a cache of rows of which each comes once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdwater.timeline.buckets import Floats, Integers

GRAIN = float(16 << 20)
"""One standard deviation of noise, in bytes."""
Driver = Literal["nothing", "garbage", "samples"]


@dataclass(frozen=True, slots=True)
class Noise:
    """What a step's reading scatters by."""

    correlation: float = 0.0
    """Of neighbouring steps; 0.999 is near a random walk."""
    tails: float | None = None
    """Degrees of freedom of Student's t; None is the normal distribution."""

    def draw(self, steps: int, random: np.random.Generator) -> Floats:
        """Draw the noise of a run, with standard deviation about 1. Shape (steps,)."""
        size = steps if self.correlation == 0 else steps + 1
        fresh = random.standard_normal(size)
        if self.tails is not None:
            fresh = random.standard_t(self.tails, size)
        if self.correlation == 0:
            return fresh
        return _autoregress(fresh, self.correlation)


def _autoregress(fresh: Floats, correlation: float) -> Floats:
    """First-order autoregression that has been going on for ever. Shape (steps + 1,) to (steps,)."""
    scaled = fresh * np.sqrt(1 - correlation**2)
    scaled[0] = fresh[0]
    from scipy.signal import lfilter  # noqa: PLC0415 - for evaluation only

    result: Floats = lfilter([1.0], [1.0, -correlation], scaled)
    return result[1:]


NOISES = (
    Noise(0.0),
    Noise(0.5),
    Noise(0.9),
    Noise(0.99),
    Noise(0.999),
    Noise(0.0, tails=2.5),
    Noise(0.9, tails=3.0),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One run."""

    kind: str
    memory: Floats
    """Bytes at each step. Shape (steps,)."""
    leak: bool
    driver: Driver = "nothing"
    driven_until: int = 0
    """The step at which the driver has done its work, where it has an end."""


Maker = Callable[[int, np.random.Generator], tuple[Floats, Driver, int]]


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(random.uniform(np.log(low), np.log(max(high, low * 1.001)))))


def _flat(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """Nothing but noise."""
    del random
    return np.zeros(steps), "nothing", 0


def _warm_up(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """Growth that slows down exponentially, done after 2 % of the run or 500 steps, whichever is less."""
    constant = _log_uniform(random, 3, min(steps / 50, 500))
    height = _log_uniform(random, 3, 1000)
    return height * -np.expm1(-np.arange(steps) / constant), "nothing", 0


def _stairs_that_end(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """A few stairs of different height at random steps of the first fifth."""
    memory = np.zeros(steps)
    for at in random.integers(0, steps // 5, random.integers(1, 7)):
        memory[at:] += _log_uniform(random, 3, 100)
    return memory, "nothing", 0


def _shift(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """One step up, at any time."""
    memory = np.zeros(steps)
    memory[random.integers(1, steps) :] += _log_uniform(random, 1, 300)
    return memory, "nothing", 0


def _sawtooth(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """Garbage that piles up until it is collected, at any period."""
    period = _log_uniform(random, 8, steps / 3)
    height = _log_uniform(random, 5, 300)
    return height * (np.arange(steps) / period % 1.0), "garbage", 0


def _spikes(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """Evaluations that need much more for some steps."""
    memory = np.zeros(steps)
    period = int(_log_uniform(random, 50, steps / 4))
    length = int(max(period * random.uniform(0.01, 0.2), 1))
    memory[np.arange(steps) % period >= period - length] = _log_uniform(random, 10, 1000)
    return memory, "nothing", 0


def _first_epoch(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """A cache of rows that fills in the first epoch, in a straight line."""
    until = int(_log_uniform(random, 50, steps / 2))
    height = _log_uniform(random, 10, 1000)
    return height * np.minimum(np.arange(steps) / until, 1.0), "samples", until


def _ratchet(steps: int, random: np.random.Generator) -> tuple[Floats, Driver, int]:
    """A high-water mark of inputs of varying size: each new record lifts it for good."""
    sizes = random.gamma(4.0, _log_uniform(random, 0.5, 3), steps)
    return np.minimum(np.maximum.accumulate(sizes), np.quantile(sizes, 1 - 20 / steps)), "nothing", 0


HEALTHY: dict[str, Maker] = {
    "flat": _flat,
    "warm-up": _warm_up,
    "stairs that end": _stairs_that_end,
    "shift": _shift,
    "sawtooth": _sawtooth,
    "spikes": _spikes,
    "first epoch": _first_epoch,
    "ratchet": _ratchet,
}


def healthy(kind: str, steps: int, noise: Noise, random: np.random.Generator) -> Curve:
    """Draw a healthy run.

    Args:
        kind: A key of `HEALTHY`.
        steps: Its length.
        noise: What it scatters by.
        random: The source of chance.
    """
    memory, driver, until = HEALTHY[kind](steps, random)
    return Curve(
        kind, GRAIN * (1000 + memory + noise.draw(steps, random)), leak=False, driver=driver, driven_until=until
    )


def leak(rate: float, onset: int, steps: int, noise: Noise, random: np.random.Generator) -> Curve:
    """Draw a run that leaks.

    Args:
        rate: Standard deviations of the noise per step.
        onset: The first step of the growth.
        steps: Its length.
        noise: What it scatters by.
        random: The source of chance.
    """
    memory = rate * np.maximum(np.arange(steps) - onset, 0) + noise.draw(steps, random)
    return Curve("leak", GRAIN * (1000 + memory), leak=True)


def oracle_score(onset: int, steps: int, noise: Noise, read: Integers | None = None) -> float:
    """Standard errors per unit of rate of the best test there is: it knows the noise, and the onset.

    It whitens by the true correlation and fits a level and a ramp by least squares, once, at the end.

    Args:
        onset: The first step of the growth.
        steps: Of the run.
        noise: What it scatters by.
        read: The steps that are read; None is each of them. Shape (readings,).
    """
    at = np.arange(steps) if read is None else read
    ramp, level = np.maximum(at - onset, 0).astype(np.float64), np.ones(len(at))
    scale = 1.0 if noise.tails is None else np.sqrt(noise.tails / (noise.tails - 2))
    if noise.correlation:
        kept = noise.correlation ** np.diff(at).astype(np.float64)  # from one reading to the next
        fresh = np.sqrt(1 - kept**2)
        ramp, level = (
            np.append(column[:1], (column[1:] - kept * column[:-1]) / fresh) for column in (ramp, level)
        )
    left = ramp - level * (ramp @ level) / (level @ level)
    return float(np.sqrt(left @ left) / scale)
