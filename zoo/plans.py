"""Plan a generated program: how many steps, how fast, when something is kept, and how large it is."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zoo.holders import Holder
from zoo.mechanisms import Mechanism, Style

CLOCKS = ("step", "every", "evaluation", "epoch", "checkpoint", "shape", "row", "seconds")
COSTS = {"mlp": 0.0007, "deep": 0.001, "broad": 0.0013, "gru": 0.0016, "conv": 0.0008, "transformer": 0.002}
"""Models, and seconds of a step with each on one core."""
NOISES = ("none", "temporary", "spikes", "history", "garbage", "lengths")
SMALLEST_TOTAL = 12e6
LARGEST_EVENT = 2e6


class Axes(NamedTuple):
    """What kind of program: the combination decides the half."""

    mechanism: Mechanism
    holder: Holder
    clock: str
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All numbers and choices of a program and of its twin; only the bound differs."""

    style: Style
    clock: str
    bound: str
    """Of the look-alike."""
    steps: int
    seconds: float
    """How long it takes about, bare."""
    pace: float
    """Seconds between two steps."""
    pattern: str
    """even, uneven, pauses, bursts or none."""
    onset: int
    period: int
    """Steps from one event to the next."""
    events: int
    units: int
    """`$n`: how large an event is."""
    limit: int
    """Events that a look-alike keeps."""
    rows: int
    """Of what is allocated whole."""
    epochs: int | None
    """None for a plain loop over steps."""
    loop: str
    """steps, loader, batches or worker."""
    wrap: str
    """module, main or trainer."""
    split: bool
    """Whether what happens at an event stands in a function of its own."""
    folded: bool
    """Whether the value is made where it is kept."""
    model: str
    batch: int
    noise: str

    @property
    def total(self) -> float:
        """Bytes that a leak has at the end, about."""
        return self.events * self.units * self.style.unit


PATTERNS = ("even", "uneven", "pauses", "bursts")
"""How a program's steps follow one another."""
STEADY = PATTERNS[:2]
"""Where something happens every so many seconds: in a pause it happens once, and its number is not known."""


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """Draw a number of which each size is as likely."""
    return math.exp(rng.uniform(math.log(low), math.log(max(low, high))))


def clocks_of(mechanism: Mechanism, holder: Holder) -> Sequence[str]:
    """The clocks at which it can happen often enough and not too often."""
    if mechanism.worker:
        return ("step", "every", "row")
    if mechanism.fewest > 1000:
        return ("step",)
    if min(mechanism.events, holder.events) < 100:
        return ("every", "evaluation", "epoch", "checkpoint")
    if mechanism.own:
        return ("step", "every", "evaluation", "epoch", "checkpoint")
    return tuple(clock for clock in CLOCKS if clock != "row" or holder.name != "hooks")


def bounds_of(mechanism: Mechanism, holder: Holder, clock: str) -> Sequence[str]:
    """The ways in which the look-alike can be bounded."""
    if clock in {"row", "shape"}:
        return ("rows",)
    bounds = [bound for bound in holder.bounds if clock != "epoch" or bound != "epoch"]
    if "whole" in bounds and mechanism.name not in {"tensor", "array", "mapped"}:
        bounds.remove("whole")
    if mechanism.worker:
        return [*(bound for bound in bounds if bound not in {"epoch", "whole"}), "restart"]
    return bounds


def draw_plan(rng: random.Random, axes: Axes) -> Plan:
    """Draw the rest of a program whose kind is known."""
    mechanism, holder, clock, bound = axes
    styles = [style for style in mechanism.styles if style.pure or holder.name != "lru_cache"]
    styles = [style for style in styles if style.hashable or holder.name != "set"]
    style = rng.choice(styles)
    share = 0.0 if mechanism.worker or rng.random() < 0.6 else rng.uniform(0.1, 0.5)
    loop = _draw_loop(rng, axes)
    steps, seconds = _draw_length(rng, axes, share)
    period, steps = _draw_period(rng, axes, steps, share)
    epochs = None if loop == "steps" else _draw_epochs(rng, axes, steps, period)
    if epochs is not None:
        steps = max(-(-steps // epochs), 4) * epochs
        period = steps // epochs if clock == "epoch" else period
    onset = int(steps * share) // period * period
    events = (steps - onset) // period
    pace = max(seconds / steps, 0.0005)
    model = _draw_model(rng, axes, pace)
    return Plan(
        style=style,
        clock=clock,
        bound=bound,
        steps=steps,
        seconds=pace * steps,
        pace=pace,
        pattern="none" if pace < 0.001 else rng.choice(STEADY if clock == "seconds" else PATTERNS),
        onset=onset,
        period=period,
        events=events,
        units=_draw_units(rng, axes, style, events),
        limit=_draw_limit(rng, axes, events),
        rows=int(-(-steps // period) * rng.choice((1.0, 1.3, 2.0))) + 1,
        epochs=epochs,
        loop=loop,
        wrap=rng.choice(("module", "main", "trainer")),
        split=rng.random() < 0.4,
        folded=rng.random() < 0.5,
        model=model,
        batch=rng.choice((16, 24, 32, 48)),
        noise=rng.choice(_noises(axes)),
    )


def _draw_loop(rng: random.Random, axes: Axes) -> str:
    """The kind of loop that the clock and the bound need."""
    if axes.mechanism.worker:
        return "worker"
    if axes.clock == "shape":
        return "steps"
    if "epoch" in {axes.clock, axes.bound}:
        return rng.choice(("loader", "batches"))
    return rng.choice(("steps", "loader", "batches"))


def _draw_length(rng: random.Random, axes: Axes, share: float) -> tuple[int, float]:
    """Steps, and seconds for all of them."""
    most = min(axes.mechanism.events, axes.holder.events)
    fewest = math.ceil(axes.mechanism.fewest * 1.1 / (1 - share))
    seconds = log_uniform(rng, 6.0, 24.0)
    steps = seconds / log_uniform(rng, 0.0008, 0.1)
    if axes.clock in {"step", "row"}:
        steps = min(steps, most / (1 - share))
    steps = int(min(max(steps, 150, fewest), 10_000))
    return steps, max(min(seconds, steps * 0.1), steps * 0.0008)


def _draw_period(rng: random.Random, axes: Axes, steps: int, share: float) -> tuple[int, int]:
    """Steps from one event to the next; and the steps again, more if they were too few for it."""
    if axes.clock in {"step", "row"}:
        return 1, steps
    most = min(axes.mechanism.events, axes.holder.events)
    if axes.clock == "every":
        steps = max(steps, math.ceil(5 * 30 / (1 - share)))
        left = steps * (1 - share)
        low = max(5, math.ceil(left / most))
        return int(min(log_uniform(rng, low, left / 30), max(100, low))), steps
    highest = {"evaluation": 120, "checkpoint": 90, "epoch": 70, "shape": 400, "seconds": 400}[axes.clock]
    steps = max(steps, math.ceil(4 * 30 / (1 - share)))
    left = steps * (1 - share)
    count = min(log_uniform(rng, 30, min(highest, left / 3)), most * 0.9)
    return max(1, int(left / count)), steps


def _draw_epochs(rng: random.Random, axes: Axes, steps: int, period: int) -> int:
    """How many epochs; an event at the end of each, if that is the clock."""
    if axes.clock == "epoch":
        return max(30, round(steps / period))
    if axes.bound in {"epoch", "restart"}:
        return rng.randrange(5, 13)
    return rng.randrange(3, 11)


def _draw_units(rng: random.Random, axes: Axes, style: Style, events: int) -> int:
    """How large an event is."""
    mechanism = axes.mechanism
    if mechanism.fixed or style.unit == 0:
        return 1
    low = max(mechanism.least, SMALLEST_TOTAL / events)
    high = min(LARGEST_EVENT, min(mechanism.most, axes.holder.most) / events)
    return max(1, math.ceil(log_uniform(rng, low, high) / style.unit))


def _draw_limit(rng: random.Random, axes: Axes, events: int) -> int:
    """How many events a look-alike keeps: a share of the run, or a tooth of a saw."""
    if axes.bound in {"clear", "collector"}:
        return max(2, int(events * rng.uniform(0.03, 0.2)))
    drawn = axes.bound == "plateau" or axes.clock == "row"
    share = rng.uniform(0.05, 0.3 if drawn else 0.7)
    return max(2, int(events * share))


def _draw_model(rng: random.Random, axes: Axes, pace: float) -> str:
    """A model that is fast enough, and of the kind that the mechanism and the clock need."""
    models = [model for model, cost in COSTS.items() if cost < pace * 0.8]
    if axes.mechanism.name in {"graph", "summed loss"} or axes.clock == "shape":
        models = [model for model in models if model in {"mlp", "deep", "broad"}]
    return rng.choice(models or ["mlp"])


def _noises(axes: Axes) -> list[str]:
    """What else may go on in it."""
    left = [
        noise for noise in NOISES if noise != "lengths" or (axes.clock != "shape" and not axes.mechanism.worker)
    ]
    if axes.mechanism.name.endswith("cycle"):
        left.remove("garbage")
    return left
