"""Explain a growth: the lines that allocate it and the objects that hold it, from what the training process saw.

What the process saw (`Gains`, `LineTrace`, `Capture`) is data. Here it is matched with the user's source files and
ranked, and the share of the growth that it accounts for is computed. The rest stays unexplained; below a third of
the growth nothing is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from holdwater.attribution.chain import chain_of, is_recompiled_lately, other_findings, threads_in_words
from holdwater.attribution.holders import (
    Holder,
    column_of,
    find_holders,
    held_site,
    holding_profiler,
    made_site,
    share_out,
)
from holdwater.attribution.patterns import Grounds, Pattern, find_pattern
from holdwater.attribution.site import LEAST_EXPLAINED, Explanation, Growing, Site
from holdwater.attribution.source import parse

MOST_SITES = 5
MINOR = 0.1
"""A site that accounts for less than this part of the first site's share is left out."""
RECURS = 2
"""A line counts only if its allocations stay in at least this many steps, or events."""
LASTING = 0.2
"""This part of a line's live allocations must be of the recording's first half: newer ones may yet be freed."""
OVER = 3.0
"""A recorded line with this many times the growth is not part of it: its allocations will be freed."""
MOST_TIME = 0.5
"""A line that takes this part of the time cannot be distinguished from a thread that allocates meanwhile."""
NEAR = 0.25
"""A line whose net rise of the heap is this near to the growth's rate is taken as its cause."""
SEEN_TO_GROW = 0.5
"""All lines together must raise the heap by this part of the rate, or the growth was not seen."""
EVALUATES = "holdwater.evaluate"
"""What calls `mx.eval` for the program, see `frameworks.mlx_clock`: it does not say who keeps an array."""
CACHED = 0.5
"""This part of a growth makes it one of freed buffers that are kept for reuse."""
POOLED = 512
"""Python's own allocator takes objects up to this size."""
UNMEASURED = "what torch's profiler keeps cannot be measured: it is named since it is on and nothing else grows"
"""Said where a profiler is named."""
_WEIGHED = frozenset(("builtins", "torch", "numpy", "collections", "PIL", "mmap", "array"))
"""Modules whose objects are measured with all that they own."""


@dataclass(slots=True)
class _Sites:
    """The material of an explanation."""

    holders: list[Holder]
    held: list[Site]
    allocated: list[Site]
    threads: list[dict[str, Any]]
    """Native threads whose allocations stay."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.held or self.allocated or self.threads)

    @property
    def known(self) -> float:
        """Bytes per step that are accounted for."""
        threads = float(sum(row["bytes_per_step"] for row in self.threads))
        return max(_sum(self.held), _sum(self.allocated) + threads)


def explain(
    seen: Mapping[str, Any], growing: Growing, *, recorded: Mapping[str, Any] | None = None
) -> Explanation:
    """Turn what a process saw in a few steps into sites.

    Args:
        seen: What the process saw: `from_step`, `to_step`, `gains`, `lines`, `ran`, `heap`, `traced_steps`,
            `libraries`, `missing`; `events` of the growth's clock between the counts; `unfinished`, why it saw
            too little.
        growing: What grows, and by how much.
        recorded: Its allocations, as `recorded.read` returns them; None if they were not recorded.
    """
    steps = max(seen["to_step"] - seen["from_step"], 1)
    found = _find(seen, growing, recorded, steps)
    missing = [*seen.get("missing", ()), *([seen["unfinished"]] if "unfinished" in seen else [])]
    if not found:
        found = _of_a_profiler(seen, growing)
        missing += [UNMEASURED] if found else []
    rate = growing.rate
    sites = [replace(site, share=_share(site.bytes_per_step, rate)) for site in _in_order(found, rate)]
    explained = _share(found.known, rate) if sites or found.threads else 0.0
    answered = explained >= LEAST_EXPLAINED and "unfinished" not in seen
    said = [*threads_in_words(found.threads), *chain_of(found.holders, sites, growing, steps)] if answered else []
    return Explanation(
        step=int(seen["to_step"]),
        sites=tuple(sites),
        explained=explained,
        chain=(*([seen["inside"]] if "inside" in seen and said else []), *said, *other_findings(seen, growing)),
        pattern=_pattern(seen, growing, recorded, found) if answered and sites else None,
        missing=tuple(missing),
        seconds=float(seen.get("seconds", 0.0)),
        answer="explained" if answered else "not explained yet",
    )


def _find(seen: Mapping[str, Any], growing: Growing, recorded: Mapping[str, Any] | None, steps: int) -> _Sites:
    """What holds and what allocates."""
    component = growing.component
    holders = find_holders(seen, growing)
    if component == "host.children":
        share_out(holders, growing.rate * steps)
    sized = [(holder, held_site(holder, _held_rate(holder, seen, growing, steps))) for holder in holders]
    known = _without_unfounded(
        [(holder, site) for holder, site in sized if site is not None], _allocated(recorded, growing)
    )
    holders, held = [holder for holder, _ in known], [site for _, site in known]
    threads = [] if column_of(component) == "handles" else _threads(recorded, growing)
    if component.startswith("device."):
        allocated = _on_the_device(seen, growing)
    elif column_of(component) == "handles":
        allocated = _by_the_handles(seen, growing)  # what was recorded is bytes
    else:
        allocated = _allocated_within(_allocated(recorded, growing), held, growing)
        allocated = [one for one in allocated if held or (component, one.name) != ("host.tensors", EVALUATES)]
    if max(_sum(allocated), _sum(held)) < LEAST_EXPLAINED * growing.rate and not threads:
        allocated = _by_the_heap(seen, growing) or allocated
    if component == "host.retained" and max(_sum(allocated), _sum(held)) < LEAST_EXPLAINED * growing.rate:
        return _between_what_is_kept(known, allocated, growing)
    if held and allocated and held[0].bytes_per_step < MINOR * allocated[0].bytes_per_step:
        known = [pair for pair in known if _may_hold_more(pair[0].gain, recorded, steps)][:1]
        holders, held = [holder for holder, _ in known], [site for _, site in known]
    if not allocated or _are_elsewhere(allocated, known):
        made = [made_site(holder, site.bytes_per_step, seen) for holder, site in known[:2]]
        allocated = [site for site in made if site is not None]
    return _Sites(holders if held else [], held, allocated, threads)


def _of_a_profiler(seen: Mapping[str, Any], growing: Growing) -> _Sites:
    """A profiler that is on keeps its events: where nothing else grows, the growth is theirs."""
    holder = holding_profiler(seen) if growing.component == "host.native" else None
    site = None if holder is None else held_site(holder, growing.rate)
    return _Sites([], [], [], []) if holder is None or site is None else _Sites([holder], [site], [], [])


def _without_unfounded(known: list[tuple[Holder, Site]], recorded: list[Site]) -> list[tuple[Holder, Site]]:
    """Leave out names that keep nothing more, as far as is measured, unless the line that sets one allocates most.

    The nodes of a graph that MLX has not evaluated are native memory: only its arrays are measured.
    """
    most = max(recorded, key=lambda site: site.bytes_per_step, default=None)
    found: list[tuple[Holder, Site]] = []
    for holder, site in known:
        if holder.gain["kind"] == "rebound" and not site.bytes_per_step:
            if most is None or (site.file, site.line) != (most.file, most.line):
                continue
            found.insert(0, (holder, replace(site, bytes_per_step=most.bytes_per_step, known_by="seen")))
        else:
            found.append((holder, site))
    return found


def _are_elsewhere(allocated: list[Site], known: list[tuple[Holder, Site]]) -> bool:
    """Whether lines allocate next to nothing of what MLX arrays hold: it allocates where it evaluates."""
    of_arrays = [site for holder, site in known[:1] if holder.gain.get("arrays")]
    return bool(of_arrays) and _sum(allocated) < MINOR * of_arrays[0].bytes_per_step


def _between_what_is_kept(known: list[tuple[Holder, Site]], allocated: list[Site], growing: Growing) -> _Sites:
    """The container that gains blocks: free memory that malloc cannot give back lies between kept blocks.

    Objects of 512 bytes or less are not malloc blocks: they lie in Python's own pools.
    """
    kept = [
        (holder, replace(site, bytes_per_step=growing.rate))
        for holder, site in known
        if holder.gain["kind"] == "container" and holder.weights["total"] > POOLED * holder.count > 0
    ][:1]
    return _Sites([holder for holder, _ in kept], [site for _, site in kept], allocated, [])


def _may_hold_more(gain: Mapping[str, Any], recorded: Mapping[str, Any] | None, steps: int) -> bool:
    """Whether a container whose measured size is tiny may hold the allocated memory invisibly.

    A library's objects may own native memory that cannot be measured. Then one more of them appears whenever the
    line that allocates most has run.
    """
    places = () if recorded is None else recorded.get("places", ())
    if not places or gain["kind"] != "container":
        return False
    opaque = any(share >= 0.5 and name.partition(".")[0] not in _WEIGHED for name, share in gain["bases"].items())
    most = max(places, key=lambda place: place["bytes"])
    expected = most["steps"] / most["of_steps"] * steps
    return opaque and 0.5 * expected <= gain["count"] <= 2 * expected


def _pattern(
    seen: Mapping[str, Any], growing: Growing, recorded: Mapping[str, Any] | None, found: _Sites
) -> Pattern | None:
    """The known cause, if its evidence was seen."""
    free = {size for size, _ in seen.get("device_free", ())}
    return find_pattern(
        Grounds(
            gain=found.holders[0].gain if found.holders else {},
            component=growing.component,
            follows=growing.follows,
            libraries=frozenset(seen.get("libraries", ())),
            new_sizes=len(free) >= RECURS or int((recorded or {}).get("new_sizes", 0)) >= RECURS,
            recompiled=any(map(is_recompiled_lately, seen.get("recompiled", ()))),
            cached=_is_cached(seen, growing),
            recorded=any(site.role == "allocated" and site.known_by == "seen" for site in found.allocated),
        )
    )


def _is_cached(seen: Mapping[str, Any], growing: Growing) -> bool:
    """Whether MLX's cache of freed buffers makes up most of the growth."""
    steps = max(seen["to_step"] - seen["from_step"], 1)
    return growing.rate > 0 and float(seen.get("mlx", {}).get("cache", 0)) >= CACHED * growing.rate * steps


def _held_rate(holder: Holder, seen: Mapping[str, Any], growing: Growing, steps: int) -> float:
    """A holder's growth per step; if it grows by events, from what each of them added."""
    size = holder.weights[column_of(growing.component)]
    events = int(seen.get("events", 0))
    if growing.eventful and events and growing.per_event and growing.every_steps is None:
        return float(size / events * growing.rate / growing.per_event)
    return float(size / steps)


def _allocated(recorded: Mapping[str, Any] | None, growing: Growing) -> list[Site]:
    """The lines whose allocations stayed."""
    found = []
    for place in () if recorded is None else recorded.get("places", ()):
        often = place["steps"] >= RECURS or growing.follows not in {"step", "unknown"}
        lasting = growing.eventful or place.get("early", 1.0) >= LASTING
        if often and lasting and (column_of(growing.component) != "files" or place.get("mapped", 0)):
            found.append(_site(place["file"], place["line"], place["inner"], _place_rate(place, growing)))
    return found


def _allocated_within(recorded: list[Site], held: list[Site], growing: Growing) -> list[Site]:
    """The recorded lines that allocate no more than grows.

    If there are none, and no holder explains the growth of native memory, the line that allocates most: memory
    that is freed elsewhere is not seen.
    """
    most = OVER * max(growing.rate, _sum(held))
    within = [site for site in recorded if site.bytes_per_step <= most]
    explained = _sum(held) >= LEAST_EXPLAINED * growing.rate
    if within or not recorded or explained or growing.component != "host.native":
        return within
    return [replace(max(recorded, key=lambda site: site.bytes_per_step), bytes_per_step=growing.rate)]


def _place_rate(place: Mapping[str, Any], growing: Growing) -> float:
    """The growth of a place's allocations per step; by events, what each adds times their frequency."""
    size = place.get("mapped", 0) if column_of(growing.component) == "files" else place["bytes"]
    if place.get("of_events") and growing.per_event:
        return float(size / place["of_events"] * growing.rate / growing.per_event)
    return float(size / place["of_steps"])


def _threads(recorded: Mapping[str, Any] | None, growing: Growing) -> list[dict[str, Any]]:
    """The native threads whose allocations stay and make up a good part of the growth."""
    rows = [] if recorded is None else recorded.get("threads", ())
    sized = [row | {"bytes_per_step": _place_rate(row, growing)} for row in rows if row["steps"] >= RECURS]
    least, most = LEAST_EXPLAINED * growing.rate, OVER * growing.rate
    return [row for row in sized if least <= row["bytes_per_step"] <= most]


def _on_the_device(seen: Mapping[str, Any], growing: Growing) -> list[Site]:
    """The lines whose allocations on the device stayed, or for which the allocator reserved more."""
    what = "segments" if growing.component == "device.reserved" else "device"
    steps, events = max(seen.get("device_steps", 1), 1), seen.get("device_events", 0)
    scale = 1 / steps
    if growing.eventful and events and growing.per_event and growing.every_steps is None:
        scale = growing.rate / growing.per_event / events
    return [_site(file, line, None, size * scale) for file, line, size in seen.get(what, ())]


def _by_the_heap(seen: Mapping[str, Any], growing: Growing) -> list[Site]:
    """The line at which the heap rises by about the rate of the growth, if that is host memory."""
    steps, rate = seen.get("traced_steps", 0), growing.rate
    on_the_host = not growing.component.startswith("device.") and column_of(growing.component) != "handles"
    if not steps or rate <= 0 or not on_the_host:
        return []
    rows = seen.get("heap", ())
    near = [(row, found) for row in rows if abs((found := _by_step(row[2], seen, growing)) - rate) <= NEAR * rate]
    if _by_step(sum(row[2] for row in rows), seen, growing) < SEEN_TO_GROW * rate:
        return []  # what one line takes, others give back: the growth came in other steps
    if seen.get("native_threads"):  # the heap is every thread's
        near = [(row, found) for row, found in near if not _takes_the_time(row, rows)]
    near.sort(key=lambda pair: abs(pair[1] - rate))
    return [_site(file, line, None, found) for (file, line, *_), found in near[:2]]


def _by_the_handles(seen: Mapping[str, Any], growing: Growing) -> list[Site]:
    """The lines that have opened files which stayed open, each with its part of the growth."""
    rows = seen.get("opened", ()) if growing.component == "process.handles" else ()
    stayed = sum(row[2] for row in rows)
    most = sorted((row for row in rows if row[2] >= RECURS), key=lambda row: -row[2])[:2]
    return [_site(file, line, None, growing.rate * count / stayed) for file, line, count in most]


def _by_step(size: float, seen: Mapping[str, Any], growing: Growing) -> float:
    """What a line adds in a step; if lines were traced until the next rise, that rise."""
    rise = growing.per_event if growing.per_event is not None else growing.rate * (growing.every_steps or 0)
    waited = seen.get("by_events") or seen.get("every_steps")
    return growing.rate * size / rise if waited and rise > 0 else float(size / seen["traced_steps"])


def _takes_the_time(row: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a line takes most of the time: another thread's allocations are then attributed to it."""
    return bool(row[3] > MOST_TIME * sum(other[3] for other in rows))


def _site(file: str, line: int, name: str | None, size: float) -> Site:
    """A line that was seen to allocate."""
    role: Literal["allocated"] = "allocated"
    source = parse(file)
    statement = None if source is None else source.at(line)
    if statement is None:
        return Site(role, file, line, "<unknown>", name, None, size)
    return Site(role, file, line, statement.function, name, None, size, statement.text)


def _in_order(parts: _Sites, rate: float) -> list[Site]:
    """Holders and allocations alternating, the largest first; minor ones left out.

    Where something holds the growth, lines are minor that allocate little of it (of `rate` bytes a step).
    """
    held, allocated = (
        [site for site in sites if site.bytes_per_step >= MINOR * sites[0].bytes_per_step]
        for sites in (parts.held, parts.allocated)
    )
    if held:
        least = MINOR * min(held[0].bytes_per_step, rate)
        allocated = [site for site in allocated if site.bytes_per_step >= least]
    found: list[Site] = []
    for turn in range(MOST_SITES):
        found += held[turn : turn + 1] + allocated[turn : turn + 1]
    return found[:MOST_SITES]


def _sum(sites: list[Site]) -> float:
    """Bytes per step of all."""
    return sum(site.bytes_per_step for site in sites)


def _share(size: float, rate: float) -> float:
    """A part of the growth, 0 to 1."""
    return round(min(size / rate, 1.0), 3) if rate > 0 else 0.0
