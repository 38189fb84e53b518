"""Who allocates a growth and who holds it: the sites of a finding, made of what was seen in the training process.

What the process saw (`Gains`, `LineTrace`, `Capture`) is data; here it is held against the source of the user's
files, put in order, and said how much of the growth it accounts for. What it does not account for stays
unexplained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from holdwater.attribution.patterns import Pattern, find_pattern
from holdwater.attribution.source import Statement, parse
from holdwater.detectors.verdict import Component
from holdwater.units import format_rate, format_size

MOST_SITES = 5
MINOR = 0.1
"""A site that accounts for less than this part of what the first does is left out."""
RECURS = 2
"""A line allocates what stays in so many steps at least, where a growth follows steps."""
SELDOM = 0.2
"""A container that gained fewer elements a step has not followed the steps."""
MUCH = 0.3
"""Unless they account for this share of the growth."""
NEAR = 0.25
"""A line's net rise of the heap this near to the rate of the growth is taken for it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A line that has to do with a growth."""

    role: Literal["allocated", "held"]
    file: str
    line: int
    function: str
    name: str | None
    """Under which it is held; of an allocation the function that was called."""
    kind: str | None
    """What holds: `list`, `lru_cache`, `Tensor`; None for an allocation."""
    bytes_per_step: float
    text: str = ""
    """The line itself."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a growth beside its curve."""

    step: int
    """The step at which it was known."""
    sites: tuple[Site, ...]
    """At most five, the guiltiest first."""
    explained: float
    """The share of the growth that they account for, 0 to 1."""
    chain: tuple[str, ...] = ()
    """The way from the allocation to what it keeps, a sentence each."""
    pattern: Pattern | None = None
    missing: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    seconds: float = 0.0
    """What looking cost the training process."""

    def as_json(self) -> dict[str, Any]:
        """For the run's store."""
        return asdict(self)


@dataclass(slots=True)
class _Holder:
    """Gains that are held under one name."""

    name: str
    gain: dict[str, Any]
    """The heaviest of them."""
    weights: dict[str, float]
    nodes: float
    place: tuple[str, Statement] | None
    """The file, and the statement that stores."""


def explain(
    seen: Mapping[str, Any],
    component: Component,
    rate: float,
    *,
    follows: str = "step",
    recorded: Mapping[str, Any] | None = None,
) -> Explanation:
    """Put what a process saw in a few steps into sites.

    Args:
        seen: What it saw: `from_step`, `to_step`, `gains`, `lines`, `heap`, `traced_steps`, `missing`.
        component: What grows.
        rate: By how many bytes (or handles) a step.
        follows: The clock of the growth.
        recorded: What its allocations were, as `capture.read` returns it; None where they were not recorded.
    """
    steps = max(seen["to_step"] - seen["from_step"], 1)
    holders = _holders(seen, component, follows, rate)
    if component.startswith("device."):
        allocated = _on_the_device(seen, "segments" if component == "device.reserved" else "device")
    else:
        allocated = _allocated(recorded, follows)
    if _column(component) == "handles":
        allocated = []  # those are bytes
    if not allocated and not holders:
        allocated = _by_the_heap(seen, rate)
    if component == "host.children":
        _share_out(holders, rate * steps)
    held = [_held_site(holder, component, steps) for holder in holders]
    if held and allocated and held[0] is not None and held[0].bytes_per_step < MINOR * allocated[0].bytes_per_step:
        held = []  # it holds next to nothing of what is allocated
    if not allocated:
        allocated = [site for holder in holders[:2] if (site := _made_site(holder, component, steps)) is not None]
    sites = _in_order([site for site in held if site is not None], allocated)
    known = max(_sum([site for site in held if site is not None]), _sum(allocated))
    pattern = find_pattern(holders[0].gain if any(held) else {}, sites, component)
    return Explanation(
        step=int(seen["to_step"]),
        sites=tuple(sites),
        explained=round(min(known / rate, 1.0), 3) if rate > 0 and sites else 0.0,
        chain=(
            *([seen["inside"]] if "inside" in seen and sites else []),
            *_chain(holders, sites, component, steps),
            *_free_blocks(seen, component),
            *(_recompiled(seen) if follows in {"compile", "shape"} else []),
        ),
        pattern=pattern,
        missing=tuple(seen.get("missing", ())),
        seconds=float(seen.get("seconds", 0.0)),
    )


def _recompiled(seen: Mapping[str, Any]) -> list[str]:
    """The functions that were compiled again, and the guard that did not hold."""
    return [
        f"`{row['function']}` ({row['file'].rpartition('/')[2]}:{row['line']}) was compiled again "
        f"{row['often']} times; the last time this did not hold: {row['guard']}"
        for row in seen.get("recompiled", ())
    ]


def _column(component: Component) -> str:
    """Which weight of a gain counts for a component."""
    return {
        "process.handles": "handles",
        "host.children": "handles",
        "host.file": "files",
        "host.shared": "files",
    }.get(component, "total")


def _is_seldom(gain: Mapping[str, Any], steps: int, follows: str, rate: float) -> bool:
    """Whether a container grew too seldom to have followed the steps, and by too little to matter."""
    if follows != "step" or gain["kind"] != "container" or gain["handles"]:
        return False
    return bool(gain["count"] < SELDOM * steps and sum(gain["weight"].values()) < MUCH * rate * steps)


def _weights(gain: Mapping[str, Any]) -> dict[str, float]:
    """A gain in bytes of each kind; what holds plain numbers may hold handles."""
    weight = gain["weight"]
    total = sum(weight.values())
    numbers = gain["kind"] == "container" and set(gain["elements"]) <= {"int"}
    return {
        "total": total,
        "files": gain["files"],
        "handles": gain["handles"] or (gain["count"] if numbers else 0),
        "host.tensors": weight["tensors"],
        "host.python": weight["python"],
        "host.native": weight["native"],
    }


def _holders(seen: Mapping[str, Any], component: Component, follows: str, rate: float) -> list[_Holder]:
    """Gains by the name under which they are held, the heaviest in what grows first."""
    steps = max(seen["to_step"] - seen["from_step"], 1)
    found: dict[tuple[str, str], _Holder] = {}
    for index, gain in enumerate(seen.get("gains", ())):
        if gain["naming"] is not None and not _is_seldom(gain, steps, follows, rate):
            _book(found, seen, index, gain)
    users = seen.get("users_files", ())
    return sorted(found.values(), key=lambda holder: _rank(holder, component, users))


def _book(
    found: dict[tuple[str, str], _Holder], seen: Mapping[str, Any], index: int, gain: dict[str, Any]
) -> None:
    """Add a gain to its holder."""
    key = (gain["naming"]["name"], gain["naming"]["owner"])
    weights, holder = _weights(gain), found.get(key)
    if holder is None:
        found[key] = _Holder(key[0], gain, weights, gain["nodes"], _stored_at(seen, index, gain))
    elif (
        holder.gain["kind"] == gain["kind"]
    ):  # else the same, seen in two ways: a list, and graphs behind its name
        for name, size in weights.items():
            holder.weights[name] += size
        holder.nodes += gain["nodes"]
        holder.place = holder.place or _stored_at(seen, index, gain)


def _rank(holder: _Holder, component: Component, users_files: Sequence[str]) -> tuple[float, float]:
    """What counts for the component, the user's own holders before others; the smaller the guiltier."""
    column, sizes, naming = _column(component), holder.weights, holder.gain["naming"]
    matched = sizes[column] if column != "total" else sizes["total"] + sizes.get(component, 0.0)
    trust = 1.0 if (naming["file"] or "") in users_files else 0.5 if holder.place is not None else 0.1
    if naming["owner"].startswith("torch.optim") and holder.name == "state":
        trust = 0.1  # it follows the parameters that the optimizer was given
    return -matched * trust, -sizes["total"]


def _share_out(holders: list[_Holder], size: float) -> None:
    """Give each holder of processes its part of what they have grown by: they are known by number only."""
    total = sum(holder.weights["handles"] for holder in holders)
    for holder in holders:
        holder.weights["handles"] *= size / max(total, 1.0)


def _stored_at(seen: Mapping[str, Any], index: int, gain: Mapping[str, Any]) -> tuple[str, Statement] | None:
    """The statement that stores: where the container was seen to grow, else where the source says so."""
    naming = gain["naming"]
    if naming["role"] == "cache":
        return _by_the_source(naming, seen.get("users_files", ()), gain)
    for file, line, _ in sorted(seen.get("lines", {}).get(str(index), ()), key=lambda row: -row[2]):
        source = parse(file)
        statement = None if source is None else source.at(line)
        if statement is not None:
            return file, statement
    return _by_the_source(naming, seen.get("users_files", ()), gain)


def _by_the_source(
    naming: Mapping[str, Any], files: list[str], gain: Mapping[str, Any]
) -> tuple[str, Statement] | None:
    """The likeliest statement that stores under a name: in the owner's own file first."""
    if naming["role"] == "cache" and naming["file"] in files:
        source = parse(naming["file"])
        statement = None if source is None else source.at(naming["line"] or 0)
        return None if statement is None else (naming["file"], statement)
    ordered = sorted(files, key=lambda file: file != naming["file"])
    scope = naming["owner"].rpartition(".")[2]
    for file in ordered:
        source = parse(file)
        if source is None:
            continue
        found = source.calls_with("create_graph") if gain["kind"] == "gradients" else []
        found = found or source.stores(naming["name"], scope=scope)
        if found and (file == naming["file"] or found[0].kind != "name"):
            return file, found[0]
    for file in () if naming["file"] in files else files:
        source = parse(file)
        found = [] if source is None else source.calls_like(naming["name"])
        if found:
            return file, found[0]
    return None


def _held_site(holder: _Holder, component: Component, steps: int) -> Site | None:
    """Where something is held; where the statement is not known, where its holder is defined."""
    naming = holder.gain["naming"]
    size = holder.weights[_column(component)] / steps
    kind = "lru_cache" if naming["role"] == "cache" else holder.gain["type"]
    if holder.gain["kind"] in {"instances", "gradients"}:
        kind = "attribute"
    if holder.place is None:
        if naming["file"] is None:
            return None
        line = naming["line"] or 1
        return Site("held", naming["file"], line, naming["owner"], holder.name, kind, size)
    file, statement = holder.place
    return Site("held", file, statement.line, statement.function, holder.name, kind, size, statement.text)


def _made_site(holder: _Holder, component: Component, steps: int) -> Site | None:
    """Where what is held was made, as the source has it."""
    if holder.place is None:
        return None
    file, store = holder.place
    source = parse(file)
    if source is None:
        return None
    made = source.makes(store, holder.name)
    size = holder.weights[_column(component)] / steps
    return Site("allocated", file, made.line, made.function, None, None, size, made.text)


def _allocated(recorded: Mapping[str, Any] | None, follows: str) -> list[Site]:
    """The lines whose allocations stayed."""
    found = []
    for place in () if recorded is None else recorded.get("places", ()):
        if follows == "step" and place["steps"] < RECURS:
            continue
        found.append(
            _site("allocated", place["file"], place["line"], place["inner"], place["bytes"] / place["of_steps"])
        )
    return found


def _on_the_device(seen: Mapping[str, Any], what: str) -> list[Site]:
    """The lines whose allocations on the device stayed, or for which the allocator reserved more."""
    steps = max(seen.get("device_steps", 1), 1)
    return [_site("allocated", file, line, None, size / steps) for file, line, size in seen.get(what, ())]


def _by_the_heap(seen: Mapping[str, Any], rate: float) -> list[Site]:
    """The line at which the heap rises by about the rate of the growth."""
    steps = seen.get("traced_steps", 0)
    if not steps or rate <= 0:
        return []
    rises = [(size / steps, file, line) for file, line, size in seen.get("heap", ())]
    near = [row for row in rises if abs(row[0] - rate) <= NEAR * rate]
    return [
        _site("allocated", file, line, None, size)
        for size, file, line in sorted(near, key=lambda row: abs(row[0] - rate))[:2]
    ]


def _site(role: Literal["allocated", "held"], file: str, line: int, name: str | None, size: float) -> Site:
    """A site by its file and line."""
    source = parse(file)
    statement = None if source is None else source.at(line)
    if statement is None:
        return Site(role, file, line, "<unknown>", name, None, size)
    return Site(role, file, line, statement.function, name, None, size, statement.text)


def _in_order(held: list[Site], allocated: list[Site]) -> list[Site]:
    """Holders and allocations by turns, the heaviest first; minor ones left out."""
    most = allocated[0].bytes_per_step if allocated else 0.0
    held = [site for site in held if site.bytes_per_step >= MINOR * held[0].bytes_per_step]
    allocated = [site for site in allocated if site.bytes_per_step >= MINOR * most]
    found: list[Site] = []
    for turn in range(MOST_SITES):
        found += held[turn : turn + 1] + allocated[turn : turn + 1]
    return found[:MOST_SITES]


def _sum(sites: list[Site]) -> float:
    """Bytes per step of all."""
    return sum(site.bytes_per_step for site in sites)


def _chain(holders: list[_Holder], sites: list[Site], component: Component, steps: int) -> list[str]:
    """The way as people read it: made here, stored there under this name, which keeps so much."""
    made = next((site for site in sites if site.role == "allocated"), None)
    held = next((site for site in sites if site.role == "held"), None)
    lines = []
    if made is not None:
        lines.append(f"allocated at {_place(made)}: {made.text}")
    if held is None or not holders:
        return lines
    naming = holders[0].gain["naming"]
    owner = {"local": "local of", "global": "in module", "cache": "in module"}.get(naming["role"], "of")
    lines.append(
        f"stored in `{held.name}` ({held.kind}, {owner} {naming['owner']}) at {_place(held)}: {held.text}"
    )
    kept = [f"{holders[0].nodes / steps:.3g} graph nodes"] if holders[0].nodes else []
    if component == "process.handles":
        kept.append(f"{held.bytes_per_step:.3g} handles a step")
    else:
        kept.append(format_rate(held.bytes_per_step))
    lines.append(f"which keeps {' and '.join(kept)}")
    total = holders[0].weights["total"]
    if total and holders[0].gain["count"]:
        each = total / holders[0].gain["count"]
        lines[-1] += f" ({format_size(each)} for each of {holders[0].gain['count']} that were added)"
    return lines


def _free_blocks(seen: Mapping[str, Any], component: Component) -> list[str]:
    """The sizes of the blocks that the device's allocator keeps and cannot use."""
    free = seen.get("device_free", ()) if component == "device.reserved" else ()
    sizes = ", ".join(f"{count} × {format_size(size)}" for size, count in free[:4])
    return [f"free blocks that are kept: {sizes}"] if sizes else []


def _place(site: Site) -> str:
    """A site as a file's name and line."""
    return f"{site.file.rpartition('/')[2]}:{site.line}"
