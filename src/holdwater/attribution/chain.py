"""Describe the path from an allocation to what it keeps, in sentences that say how each part is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from holdwater.attribution.holders import Holder
from holdwater.attribution.site import Growing, Site
from holdwater.units import format_rate, format_size

OFTEN = 4
"""Compilations between two counts that may be the cause of a growth."""
HOLES = 0.5
"""If the elements are less than this part of the growth, the free memory between them is reported."""


def chain_of(holders: Sequence[Holder], sites: Sequence[Site], growing: Growing, steps: int) -> list[str]:
    """The sentences: where it is allocated, where and under which name it is stored, and how much that keeps.

    Args:
        holders: The most likely first.
        sites: As they are reported.
        growing: The growth.
        steps: Number of steps between the two counts.
    """
    made = next((site for site in sites if site.role == "allocated"), None)
    held = next((site for site in sites if site.role == "held"), None)
    lines = [] if made is None else [made_in_words(made, "opened" if _is_of_handles(growing) else "allocated")]
    if held is None or not holders:
        return lines
    naming = holders[0].gain["naming"]
    owner = {"local": "local of", "global": "in module", "cache": "in module"}.get(naming["role"], "of")
    lines.append(_stored(held, f"`{held.name}` ({held.kind}, {owner} {naming['owner']})"))
    kept = [f"{holders[0].nodes / steps:.3g} graph nodes"] if holders[0].nodes else []
    if _is_of_handles(growing):
        kept.append(f"{held.bytes_per_step:.3g} handles a step")
    else:
        kept.append(format_rate(held.bytes_per_step))
    lines.append(f"which keeps {' and '.join(kept)}")
    total = holders[0].weights["files" if growing.component in {"host.file", "host.shared"} else "total"]
    if total and holders[0].count and holders[0].gain["kind"] != "rebound":
        lines[-1] += f" ({format_size(total / holders[0].count)} for each of {holders[0].count} that were added)"
    if growing.component == "host.retained" and total < HOLES * held.bytes_per_step * steps:
        holes = f"{format_rate(held.bytes_per_step)} of free memory between them"
        lines[-1] = f"which keeps {holders[0].count} blocks of {format_size(total / holders[0].count)}: {holes}"
    return lines


def _is_of_handles(growing: Growing) -> bool:
    """Whether open files are what grows."""
    return growing.component == "process.handles"


def threads_in_words(threads: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe native threads whose allocations stay: no line of the program runs in them.

    Args:
        threads: Of a recording, each with `name` and `bytes_per_step`, the largest first.
    """
    return [
        f"allocated by a native thread, {_thread(row)}, in which no line of Python runs: "
        f"{format_rate(row['bytes_per_step'])}"
        for row in threads
    ]


def other_findings(seen: Mapping[str, Any], growing: Growing) -> list[str]:
    """Describe other findings for a growth of this kind: blocks that are kept, functions that were recompiled.

    Args:
        seen: What a process saw.
        growing: The growth.
    """
    free = seen.get("device_free", ()) if growing.component == "device.reserved" else ()
    sizes = ", ".join(f"{count} × {format_size(size)}" for size, count in free[:4])
    rows = seen.get("recompiled", ())
    again = [row for row in rows if growing.follows in {"compile", "shape"} or is_recompiled_lately(row)]
    return [
        *([f"free blocks that are kept: {sizes}"] if sizes else []),
        *(
            f"`{row['function']}` ({row['file'].rpartition('/')[2]}:{row['line']}) was compiled again "
            f"{row['often']} times; the last time this did not hold: {row['guard']}"
            for row in again
        ),
    ]


def is_recompiled_lately(row: Mapping[str, Any]) -> bool:
    """Whether a function was compiled again and again between the two counts; known for MLX only.

    Args:
        row: As `recompiles.recompilations` describes it.
    """
    return int(row.get("lately", 0)) >= OFTEN


def made_in_words(site: Site, how: str = "allocated") -> str:
    """Describe where something is allocated, or a file is opened.

    Args:
        site: Of an allocation.
        how: The participle.
    """
    if site.known_by == "seen":
        return f"{how} at {_place(site)}: {site.text}"
    return f"the source makes it at {_place(site)}: {site.text} ({_doubt(site)})"


def _stored(site: Site, what: str) -> str:
    """Where something is stored."""
    if site.known_by == "seen":
        return f"stored in {what} at {_place(site)}: {site.text}"
    if not site.text:
        return f"held in {what}, defined in {_place(site)}; no statement that stores it was found"
    return f"held in {what}; the source stores it at {_place(site)}: {site.text} ({_doubt(site)})"


def _doubt(site: Site) -> str:
    """What was not observed of a line that was read in the source."""
    return "it ran, but was not recorded" if site.ran else "it was not seen to run"


def _thread(row: Mapping[str, Any]) -> str:
    """A thread by its name."""
    return f"`{row['name']}`" if row["name"] else "unnamed"


def _place(site: Site) -> str:
    """A site as a file's name and line."""
    return f"{site.file.rpartition('/')[2]}:{site.line}"
