"""Growth whose end is known: the dataset's last row, a container's maximum length, the size of a mapping.

Each is a forecast (*bounded*, with the level and the step at which it settles), not a leak.
"""

from collections.abc import Iterator

import numpy as np

from holdwater.detectors import accuse
from holdwater.detectors.evidence import Evidence
from holdwater.detectors.forecast import follows_steps, forecast_visits
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import Clock, Component, Finding, Plateau
from holdwater.probes.mappings import Kind, Touched
from holdwater.timeline.buckets import Buckets
from holdwater.units import Step, format_size

MAPPED_SHARE = 0.25
"""If new address space is at most this part of a growth, the growth is within earlier mappings."""

LATER_RISE = 0.1
"""If more than this part of a rise comes after the last first visit of a sample, visits do not explain it."""

UNCOUNTED = 32
"""Steps by which the tokens of a generation may differ from the steps that were counted."""
ACCOUNTED = 0.5
"""Readings of the regions that show less of a growth than this are too old, or too recent, to decide."""


def known_end(
    buckets: Buckets, evidence: Evidence, component: Component, growth: Growth, *, series: str
) -> Finding | None:
    """Find the end of a growth.

    Args:
        buckets: The history.
        evidence: What is known beyond the curves.
        component: What grows.
        growth: How it grows.
        series: The name of the series that grows.

    Returns:
        The finding; None if nothing bounds the growth.
    """
    ends = _ends(buckets, evidence, component, growth, series)
    return next((found for found in ends if found is not None), None)


def after_visits(buckets: Buckets, evidence: Evidence, component: Component, growth: Growth) -> Finding | None:
    """Attribute a growth that has stopped to the first visits of samples, however long ago these were.

    Args:
        buckets: The history.
        evidence: What is known beyond the curves.
        component: What grew.
        growth: How it grew.

    Returns:
        The finding; None if the datasets do not hold it, or memory rose after the last first visit as well.
    """
    visits = accuse.visits(buckets, evidence)
    if visits is None or visits[0] < visits[1] or component == "host.file":
        return None
    if not accuse.is_held_by_datasets(evidence) or _rises_after_visits(buckets):
        return None
    return _of_visits(buckets, component, growth, visits)


def _rises_after_visits(buckets: Buckets) -> bool:
    """Whether a noticeable part of the rise came when each row had been given out already."""
    resident, rows = buckets.lows("resident"), np.nan_to_num(buckets.highs("samples_seen"))
    last_new = int(np.argmax(rows))
    before, after = resident[: last_new + 1], resident[last_new:]
    risen = np.nanmax(before) - np.nanmin(before)
    return bool(np.nanmax(after) - np.nanmax(before) > LATER_RISE * risen)


def _ends(
    buckets: Buckets, evidence: Evidence, component: Component, growth: Growth, series: str
) -> Iterator[Finding | None]:
    """Possible bounds, the most certain first."""
    yield by_generation(buckets, evidence, component, growth)
    if component == "host.children":
        yield _by_worker_visits(buckets, evidence, growth, series)
        return
    if component != "host.file":
        yield _by_visits(buckets, evidence, component, growth)
        yield _by_capacity(buckets, evidence, component, growth)
    if component == "host.file":
        yield _by_regions(buckets, evidence, component, growth, "file")
    elif series in {"outside", "resident"}:  # regions do not show what malloc hands out
        yield _by_regions(buckets, evidence, component, growth, "private")


def _by_visits(buckets: Buckets, evidence: Evidence, component: Component, growth: Growth) -> Finding | None:
    """Growth of what the loaders' datasets hold: it ends when each row was read once."""
    visits = accuse.first_visits(buckets, evidence)
    if visits is None or not accuse.is_held_by_datasets(evidence):
        return None
    return _of_visits(buckets, component, growth, visits)


def _by_worker_visits(buckets: Buckets, evidence: Evidence, growth: Growth, series: str) -> Finding | None:
    """Growth of what loader workers' datasets hold: it ends when each worker has read each row once."""
    visits = accuse.worker_visits(buckets, evidence)
    if visits is None or not accuse.is_held_by_workers_datasets(evidence, growth):
        return None
    if follows_steps(buckets, memory=series, visits=accuse.WORKER_VISITS):
        return None
    found = forecast_visits(buckets, *visits, memory=series, visits=accuse.WORKER_VISITS)
    return _at_last_visit(buckets, "host.children", growth, found, "held by the dataset in each loader worker")


def _of_visits(
    buckets: Buckets, component: Component, growth: Growth, visits: tuple[float, float]
) -> Finding | None:
    """The finding on a growth that follows first visits; None if there are too few readings."""
    return _at_last_visit(buckets, component, growth, forecast_visits(buckets, *visits), "held by the dataset")


def _at_last_visit(
    buckets: Buckets, component: Component, growth: Growth, found: tuple[Plateau, float] | None, held: str
) -> Finding | None:
    """The finding on a growth that ends with the last first visit."""
    if found is None:
        return None
    plateau, per_row = found
    ends = _settles(buckets, plateau)
    if plateau.steps == 0:
        ends = f"has settled at {format_size(plateau.settles_at_bytes)}, since each row was read"
    text = f"memory follows first visits of samples ({format_size(per_row)} each, {held}): it {ends}"
    return _bounded(buckets, component, growth, plateau, text, follows="sample", per_event=per_row)


def _by_capacity(buckets: Buckets, evidence: Evidence, component: Component, growth: Growth) -> Finding | None:
    """Growth of containers that have a maximum length."""
    capacity = evidence.holdings[-1].room if evidence.holdings else None
    if capacity is None:
        return None
    plateau = _plateau(buckets, growth, float(capacity))
    text = f"memory grows in containers with a maximum length: it {_settles(buckets, plateau)}"
    return _bounded(buckets, component, growth, plateau, text)


def by_generation(buckets: Buckets, evidence: Evidence, component: Component, growth: Growth) -> Finding | None:
    """Growth within one generation of tokens: the prompt cache grows with each, and the most of them is known.

    Args:
        buckets: The history.
        evidence: What is known beyond the curves.
        component: What grows.
        growth: How it grows.
    """
    known = [held.generation for held in evidence.holdings if held.generation is not None]
    step, onset = int(buckets.last_step[-1]), 0 if growth.onset is None else int(growth.onset)
    if not known or growth.rate is None:
        return None
    first, last = known[-1]
    if onset < first - UNCOUNTED or step > last + UNCOUNTED:
        return None
    plateau = _plateau(buckets, growth, max(last - step, 0) * growth.rate.bytes_per_step)
    most = last - first
    text = f"memory grows with the tokens of one generation, of at most {most}: it {_settles(buckets, plateau)}"
    return _bounded(buckets, component, growth, plateau, text)


def _by_regions(
    buckets: Buckets, evidence: Evidence, component: Component, growth: Growth, kind: Kind
) -> Finding | None:
    """Growth within regions that had been mapped before it began."""
    onset = 0 if growth.onset is None else int(growth.onset)
    touched = evidence.touched_since(kind, onset)
    if touched is not None and _accounts_for(touched, growth, int(buckets.last_step[-1])):
        if not touched.has_a_bound:
            return None
        plateau = _plateau(buckets, growth, float(touched.room))
        end = f"it {_settles(buckets, plateau)} at the latest"
    else:
        if not needs_no_address_space(buckets, growth):
            return None
        plateau, end = None, "it cannot exceed what is mapped"
    what = {
        "file": "pages of mapped files become resident as they are read; the kernel may drop them again",
        "private": "memory that was allocated at once is touched gradually",
    }[kind]
    return _bounded(buckets, component, growth, plateau, f"{what}: {end}")


def _accounts_for(touched: Touched, growth: Growth, step: int) -> bool:
    """Whether readings of the regions show most of what has grown since the first of them.

    Args:
        touched: The readings.
        growth: How memory grows.
        step: The newest.
    """
    since = max(touched.since_step, 0 if growth.onset is None else int(growth.onset))
    rate = 0.0 if growth.rate is None else growth.rate.bytes_per_step
    return touched.inside + touched.fresh >= ACCOUNTED * rate * (step - since)


def needs_no_address_space(buckets: Buckets, growth: Growth) -> bool:
    """Whether hardly any address space was added in the later half of a growth; False if unknown.

    Args:
        buckets: The history.
        growth: How resident memory grows.
    """
    virtual = buckets.lows("virtual")
    seen = ~np.isnan(virtual)
    if growth.onset is None or growth.rate is None or not seen.any():
        return False
    steps, sizes = buckets.last_step[seen], virtual[seen]
    middle = (int(growth.onset) + float(steps[-1])) / 2  # libraries are loaded meanwhile, most of them early
    start = max(int(np.searchsorted(steps, middle, side="right")) - 1, 0)
    added = sizes[start:].max() - sizes[start]  # not the last: a script frees memory at its end
    grown = growth.rate.bytes_per_step * float(steps[-1] - steps[start])
    return bool(added < MAPPED_SHARE * grown)


def _plateau(buckets: Buckets, growth: Growth, capacity: float) -> Plateau:
    """Where a growth with this many bytes left settles."""
    resident = float(buckets.lows("resident")[-1])
    steps = capacity / max(growth.rate.bytes_per_step, 1.0) if growth.rate is not None else 0.0
    return Plateau(resident + capacity, steps)


def _settles(buckets: Buckets, plateau: Plateau) -> str:
    """The level and the step, as text."""
    at = int(buckets.last_step[-1]) + round(plateau.steps)
    return f"settles near step {at} at {format_size(plateau.settles_at_bytes)}"


def _bounded(  # noqa: PLR0913 - the parts of a finding
    buckets: Buckets,
    component: Component,
    growth: Growth,
    plateau: Plateau | None,
    text: str,
    *,
    follows: Clock = "step",
    per_event: float | None = None,
) -> Finding:
    """Make a finding of a bounded growth."""
    rate = growth.rate
    if rate is not None and per_event is not None:
        rate = rate.per(per_event)
    return Finding(
        verdict="bounded",
        component=component,
        detected_step=Step(int(buckets.last_step[-1])),
        onset_step=growth.onset,
        rate=rate,
        follows=follows,
        forecast=plateau,
        message=text,
    )
