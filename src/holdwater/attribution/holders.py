"""Find the holders of a growth: gains by the name under which they are held, and the statement that stores them.

If a container was seen to grow at a line, that line is the statement; else candidates are read from the user's
source files, and lines that were seen to run are preferred. What was only read in the source is marked as such.
"""

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from holdwater.attribution.gain import INTERPRETERS
from holdwater.attribution.library_calls import calls_that_make, calls_that_store
from holdwater.attribution.site import Growing, KnownBy, Site
from holdwater.attribution.source import Statement, parse

SELDOM = 0.2
"""A container that gained fewer elements a step has not grown with the steps."""
MUCH = 0.3
"""Such containers still count if they account for this share of the growth."""


SCATTERED = 3
"""Lines at which a container was seen to grow, none of them in half of the cases: more than its own statements."""
BY_ONE = 0.9
"""A library's container that grows on the loop's own thread does so at one line in this share of cases."""
BUSY = 0.4
"""A line that takes this share of the time is also the one in which most of what other threads do falls."""
_LISTING = frozenset(("multiprocessing", "subprocess", "threading"))
"""Modules that list all processes or threads that live: something else keeps them alive."""
_ADDED_TO = frozenset(("value", "container", "instances"))
"""Kinds of gains that others may make in what a name holds."""


class StoringStatement(NamedTuple):
    """The statement that stores something."""

    file: str
    statement: Statement
    known_by: KnownBy
    ran: bool


@dataclass(slots=True)
class Holder:
    """Gains that are held under one name."""

    name: str
    gain: dict[str, Any]
    """The largest of them."""
    weights: dict[str, float]
    nodes: float
    count: float
    """Elements gained."""
    place: StoringStatement | None


def find_holders(seen: Mapping[str, Any], growing: Growing) -> list[Holder]:
    """Gains by the name under which they are held, the largest in the growing component first.

    Args:
        seen: What a process saw: see `explain`.
        growing: The growth.
    """
    steps = max(seen["to_step"] - seen["from_step"], 1)
    column = column_of(growing.component)
    found: dict[tuple[str, str], Holder] = {}
    for index, gain in enumerate(seen.get("gains", ())):
        if gain["naming"] is not None:
            _book(found, seen, index, gain)
    users = seen.get("users_files", ())
    matching = [
        holder for holder in found.values()
        if (column == "total" or holder.weights[column] > 0)
        and not _is_seldom(holder, steps, growing)
        and not _is_only_set(holder)
        and not _is_of_imports(holder)
    ]  # fmt: skip
    if column == "handles" and any(_is_users(holder, users) for holder in matching):
        matching = [holder for holder in matching if not _is_listing(holder)]
    return sorted(matching, key=lambda holder: _rank(holder, growing, users))


def holding_profiler(seen: Mapping[str, Any]) -> Holder | None:
    """A profiler that is on, as the holder of its events, whose size is unknown; None without one.

    Args:
        seen: What a process saw: see `explain`.
    """
    gain = seen.get("profiler")
    if gain is None:
        return None
    return Holder(gain["naming"]["name"], gain, _weights(gain), 0, 1, _stored_at(seen, -1, gain))


def column_of(component: str) -> str:
    """Which part of a gain's size counts for a component."""
    return {
        "process.handles": "handles",
        "host.children": "handles",
        "host.file": "files",
        "host.shared": "files",
    }.get(component, "total")


def share_out(holders: list[Holder], size: float) -> None:
    """Give each holder of processes its part of their growth: only their number is known."""
    total = sum(holder.weights["handles"] for holder in holders)
    for holder in holders:
        holder.weights["handles"] *= size / max(total, 1.0)


def held_site(holder: Holder, size: float) -> Site | None:
    """The line that holds something; if the statement is not known, the line that defines its holder.

    Args:
        holder: A holder of the growth.
        size: Bytes (or handles) a step.
    """
    naming = holder.gain["naming"]
    kind = "lru_cache" if naming["role"] == "cache" else holder.gain["type"]
    if holder.gain["kind"] in {"instances", "gradients"}:
        kind = "attribute"
    if holder.place is None:
        if naming["file"] is None:
            return None
        line, owner = naming["line"] or 1, naming["owner"]
        return Site("held", naming["file"], line, owner, holder.name, kind, size, known_by="source", ran=False)
    file, statement, known_by, ran = holder.place
    return Site(
        "held", file, statement.line, statement.function, holder.name, kind, size, statement.text, known_by, ran
    )


def made_site(holder: Holder, size: float, seen: Mapping[str, Any]) -> Site | None:
    """The line that created what is held, according to the source.

    Args:
        holder: A holder of the growth.
        size: Bytes (or handles) a step.
        seen: As for `find_holders`.
    """
    if holder.place is None:
        return None
    file, store, *_ = holder.place
    source = parse(file)
    if source is None:
        return None
    made = source.makes(store, holder.name)
    ran = _ran(seen, file, made)
    return Site("allocated", file, made.line, made.function, None, None, size, made.text, "source", ran)


def _is_seldom(holder: Holder, steps: int, growing: Growing) -> bool:
    """Whether containers under a name grew too rarely to grow with the steps, and by too little to matter."""
    if growing.follows != "step" or holder.gain["kind"] != "container" or holder.gain["handles"]:
        return False
    rises = steps / (growing.every_steps or 1)
    much = MUCH * growing.rate * steps
    return bool(holder.count < SELDOM * rises and holder.weights["total"] + holder.weights["files"] < much)


def _is_only_set(holder: Holder) -> bool:
    """Whether a name that may keep what its array was computed from is never computed from itself."""
    return holder.gain["kind"] == "rebound" and (holder.place is None or holder.place.statement.kind != "again")


def _is_of_imports(holder: Holder) -> bool:
    """Whether a table of the interpreter's own grew otherwise than by a line of the program."""
    return INTERPRETERS in holder.gain["traits"] and (holder.place is None or holder.place.known_by != "seen")


def _is_users(holder: Holder, users_files: Sequence[str]) -> bool:
    """Whether the program's own code has the name."""
    return (holder.gain["naming"]["file"] or "") in users_files


def _is_listing(holder: Holder) -> bool:
    """Whether it is a table of all processes or threads that live."""
    return str(holder.gain["naming"]["owner"]).partition(".")[0] in _LISTING


def _weights(gain: Mapping[str, Any]) -> dict[str, float]:
    """A gain in bytes of each kind; what holds plain numbers may hold handles."""
    weight = gain["weight"]
    numbers = gain["kind"] == "container" and set(gain["elements"]) <= {"int"}
    return {
        "total": sum(weight.values()),
        "files": gain["files"],
        "handles": gain["handles"] or (gain["count"] if numbers else 0),
        "host.tensors": weight["tensors"],
        "host.python": weight["python"],
        "host.native": weight["native"],
    }


def _book(found: dict[tuple[str, str], Holder], seen: Mapping[str, Any], index: int, gain: dict[str, Any]) -> None:
    """Add a gain to its holder."""
    key = (gain["naming"]["name"], gain["naming"]["owner"])
    weights, holder = _weights(gain), found.get(key)
    if holder is None:
        found[key] = Holder(key[0], gain, weights, gain["nodes"], gain["count"], _stored_at(seen, index, gain))
    elif holder.gain["kind"] == gain["kind"]:  # else the same gain, found twice: a list, and graphs under its name
        for name, size in weights.items():
            holder.weights[name] += size
        holder.nodes += gain["nodes"]
        holder.count += gain["count"]
        holder.place = holder.place or _stored_at(seen, index, gain)


def _rank(holder: Holder, growing: Growing, users_files: Sequence[str]) -> tuple[float, float]:
    """The sort key: size in the component, the user's own holders before others; smaller ranks first."""
    column, sizes, naming = column_of(growing.component), holder.weights, holder.gain["naming"]
    matched = sizes[column] if column != "total" else sizes["total"] + sizes.get(growing.component, 0.0)
    trust = 1.0 if _is_users(holder, users_files) else 0.5 if holder.place is not None else 0.1
    if naming["owner"].startswith("torch.optim") and holder.name == "state":
        trust = 0.1  # it grows with the parameters that the optimizer was given
    return -matched * trust, -sizes["total"]


def _stored_at(seen: Mapping[str, Any], index: int, gain: Mapping[str, Any]) -> StoringStatement | None:
    """The statement that stores: the line at which the container was seen to grow, else one from the source."""
    naming, files = gain["naming"], seen.get("users_files", ())
    if naming["role"] == "cache" and naming["file"] in files:
        source = parse(naming["file"])
        statement = None if source is None else source.at(naming["line"] or 0)
        return None if statement is None else StoringStatement(naming["file"], statement, "seen", ran=True)
    rows = () if naming["role"] == "cache" else seen.get("lines", {}).get(str(index), ())
    seen_line = next(_lines(row[:2] for row in sorted(rows, key=lambda row: -row[2])), None)
    others = _is_by_another_thread(rows, seen, of_library=naming["file"] not in files)
    if seen_line is not None and not others:
        return seen_line
    waits = next(_lines(gain.get("stands", ())), None)  # threads that have not ended: what they wait in
    if waits is not None:
        return waits
    for file, statements in _by_the_source(naming, files, gain):
        likeliest = next((one for one in statements if _ran(seen, file, one)), statements[0])
        return StoringStatement(file, likeliest, "source", _ran(seen, file, likeliest))
    return None if len(rows) >= SCATTERED else seen_line


def _lines(places: Iterable[Sequence[Any]]) -> Iterator[StoringStatement]:
    """The statements at lines that were seen."""
    for file, line in places:
        source = parse(file)
        statement = None if source is None else source.at(line)
        if statement is not None:
            yield StoringStatement(file, statement, "seen", ran=True)


def _is_by_another_thread(rows: Sequence[Sequence[Any]], seen: Mapping[str, Any], *, of_library: bool) -> bool:
    """Whether another thread seems to add to a container: it grew at any line, or at the slowest one."""
    counts = [row[2] for row in rows]
    if len(counts) >= SCATTERED and 2 * max(counts) <= sum(counts):
        return True
    if not counts or not of_library or not seen.get("threads", 0):
        return False
    spent = {(file, line): seconds for file, line, _, seconds in seen.get("heap", ())}
    file, line, _ = max(rows, key=lambda row: row[2])
    at_slowest = spent.get((file, line), 0.0) > BUSY * sum(spent.values())
    return bool(at_slowest or max(counts) < BY_ONE * sum(counts))


def _by_the_source(
    naming: Mapping[str, Any], files: Sequence[str], gain: Mapping[str, Any]
) -> Iterable[tuple[str, list[Statement]]]:
    """The statements of each file that may store under a name, the owner's own file first."""
    ordered = sorted(files, key=lambda file: file != naming["file"])
    scope = naming["owner"].rpartition(".")[2]
    for file in ordered:
        source = parse(file)
        if source is None:
            continue
        found = source.calls_with("create_graph") if gain["kind"] == "gradients" else []
        found = found or source.stores(naming["name"], scope=scope)
        if gain["kind"] in _ADDED_TO and file == naming["file"] and all(one.kind == "name" for one in found):
            found = [*source.passes(naming["name"]), *found]  # it is made once, and others add to it
        if found and (file == naming["file"] or found[0].kind != "name"):
            yield file, found
    known = naming["file"] in files
    made = [name for name in gain["elements"] if not known and not hasattr(builtins, name)]
    for file in ordered:  # a library keeps it, under a name that the user's files never write
        source = parse(file)
        if source is None:
            continue
        found = [] if naming["file"] is None else calls_that_store(source, naming["file"], naming["name"])
        found = found or calls_that_make(source, naming["file"], scope)
        found = found or source.calls_like(naming["name"]) or source.calls_of(made)
        if found:
            yield file, found


def _ran(seen: Mapping[str, Any], file: str, statement: Statement) -> bool:
    """Whether a statement was seen to run in the steps that were traced."""
    lines = seen.get("ran", {}).get(file, ())
    return any(statement.line <= line <= statement.last for line in lines)
