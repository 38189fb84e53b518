"""List what a process holds now, on request: large tensors and their holders, objects by type, optimizer state.

An inventory only reads: it collects and changes nothing. It costs about half a second for a process with torch
loaded, so it is made on request, not at every step.
"""

import gc
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdwater.attribution.census import of_kind
from holdwater.attribution.kinds import (
    UNREADABLE,
    class_of,
    full_name_of,
    is_a,
    name_of,
    namespace_of,
    no_overrides,
)
from holdwater.attribution.paths import Paths
from holdwater.attribution.weights import follow_graphs, graph_of
from holdwater.signal_errors import not_the_scripts
from holdwater.units import format_size

MOST_TENSORS, MOST_TYPES = 12, 20
"""Rows that are kept of each table."""
MANY = 16
"""At least this many similar tensors are reported in one row."""
MOST_NODES = 100_000
"""Graph nodes that are counted."""


@dataclass(frozen=True, slots=True)
class TensorRow:
    """A large live storage, described by its largest tensor; or many similar storages, described by one tensor."""

    bytes: int
    """Bytes of all of them together."""
    shape: tuple[int, ...]
    dtype: str
    device: str
    holder: str
    """`attribute weight of torch.nn.modules.linear.Linear`; empty if no Python object holds it."""
    count: int = 1
    """Number of storages of this shape, type and device in this row."""


@dataclass(frozen=True, slots=True)
class TypeRow:
    """Objects of one type."""

    type: str
    count: int
    grown: int
    """Increase since the previous inventory; 0 at the first."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The state that an optimizer keeps for one of its parameter groups."""

    optimizer: str
    group: int
    parameters: int
    state_bytes: int
    frozen: int
    """Parameters of the group that need no gradient but have a state."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a process holds."""

    tensors: tuple[TensorRow, ...] = ()
    """The largest, the largest first."""
    tensor_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of all storages by device, each counted once."""
    types: tuple[TypeRow, ...] = ()
    """The most frequent of the types that have grown, then of all."""
    optimizers: tuple[GroupRow, ...] = ()
    graph_nodes: int = 0
    """Nodes of autograd graphs behind live tensors."""

    def as_json(self) -> dict[str, Any]:
        """The tables as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The tables as text."""
        lines = [f"tensors on {device}: {format_size(size)}" for device, size in sorted(self.tensor_bytes.items())]
        lines.append(f"graph nodes kept: {self.graph_nodes:,}")
        lines += [
            f"  {format_size(row.bytes):>10}  {f'{row.count:,} of ' if row.count > 1 else ''}"
            f"{row.dtype} {list(row.shape)} on {row.device}  {row.holder}"
            for row in self.tensors
        ]
        lines += [
            f"{row.optimizer}, group {row.group}: {format_size(row.state_bytes)} of state "
            f"for {row.parameters} parameters" + (f", {row.frozen} of them frozen" if row.frozen else "")
            for row in self.optimizers
        ]
        lines += [
            f"  {row.count:>10,}  {row.type}" + (f"  {row.grown:+,}" if row.grown else "") for row in self.types
        ]
        return "\n".join(lines)


_before: Counter[str] = Counter()
"""Counts by type at the previous inventory."""


def inventory() -> Inventory:
    """List what this process holds now: its largest tensors, its objects by type, its optimizers' state.

    Returns:
        The tables; `str()` of them is for people, `as_json()` for programs. Growth is counted from one call to
        the next.
    """
    with no_overrides():
        return _take_inventory()


def _take_inventory() -> Inventory:
    """The same, where no tensor's class has a say."""
    objects = gc.get_objects()
    tensors = of_kind(objects, "torch", "Tensor")
    optimizers = of_kind(objects, "torch.optim", "Optimizer")
    largest, by_device = _storages(tensors)
    alike = _alike(largest)
    paths = Paths({id(objects), id(tensors), id(largest), *map(id, largest), id(alike), *map(id, alike)})
    rows = []
    for size, count, tensor in alike[:MOST_TENSORS]:  # no comprehension: its frame would be a holder
        rows.append(_row(size, count, tensor, paths))
    functions = [function for function in map(graph_of, tensors) if function is not None]
    return Inventory(
        tensors=tuple(rows),
        tensor_bytes=by_device,
        types=_types(objects),
        optimizers=tuple(row for optimizer in optimizers for row in _groups(optimizer)),
        graph_nodes=follow_graphs(functions, {}, most=MOST_NODES),
    )


def leave_inventory(file: Path, step: int) -> None:
    """Write an inventory for another process; the file appears only when it is complete.

    Args:
        file: The file to write.
        step: The step that ended last.
    """
    found = inventory()
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"step": step, "text": str(found), "inventory": found.as_json()}), "utf-8")
    part.rename(file)


def _storages(tensors: list[Any]) -> tuple[list[tuple[int, Any]], dict[str, int]]:
    """The storages with a tensor of each, the largest first; and their bytes by device."""
    base = class_of("torch", "Tensor")
    found: dict[tuple[str, int], tuple[int, Any]] = {}
    for tensor in tensors:
        try:
            storage = base.untyped_storage(tensor)
            key, size = (str(base.device.__get__(tensor)), storage.data_ptr()), storage.nbytes()
            if key not in found or base.numel(tensor) > base.numel(found[key][1]):
                found[key] = (size, tensor)
        except not_the_scripts(*UNREADABLE):
            continue
    by_device: Counter[str] = Counter()
    for (device, _), (size, _) in found.items():
        by_device[device] += size
    return sorted(found.values(), key=lambda pair: -pair[0]), dict(by_device)


def _alike(storages: list[tuple[int, Any]]) -> list[tuple[int, int, Any]]:
    """Bytes, number and one tensor of storages; many of one shape, type and device are combined."""
    kinds: dict[tuple[Any, ...], list[tuple[int, Any]]] = {}
    for size, tensor in storages:
        kinds.setdefault(_described(tensor), []).append((size, tensor))
    rows: list[tuple[int, int, Any]] = []
    for members in kinds.values():
        if len(members) < MANY:
            rows += [(size, 1, tensor) for size, tensor in members]
        else:
            rows.append((sum(size for size, _ in members), len(members), members[-1][1]))
    return sorted(rows, key=lambda row: -row[0])


def _row(size: int, count: int, tensor: Any, paths: Paths) -> TensorRow:  # noqa: ANN401 - a tensor
    """Describe one tensor, or many similar ones."""
    naming = paths.find(tensor).naming
    holder = "" if naming is None else f"{naming.role} {naming.name} of {naming.owner}"
    return TensorRow(size, *_described(tensor), holder, count)


def _described(tensor: Any) -> tuple[tuple[int, ...], str, str]:  # noqa: ANN401 - a tensor
    """The shape, type and device of a tensor, as its class does not redefine them."""
    base = class_of("torch", "Tensor")
    shape, dtype, device = (getattr(base, name).__get__(tensor) for name in ("shape", "dtype", "device"))
    return tuple(shape), str(dtype).removeprefix("torch."), str(device)


def _types(objects: list[Any]) -> tuple[TypeRow, ...]:
    """Counts by type, those that have grown most first."""
    counts = Counter(full_name_of(type(item)) for item in objects)
    rows = [TypeRow(name, count, count - _before[name] if _before else 0) for name, count in counts.items()]
    _before.clear()
    _before.update(counts)
    rows.sort(key=lambda row: (-row.grown, -row.count))
    return tuple(rows[:MOST_TYPES])


def _groups(optimizer: Any) -> list[GroupRow]:  # noqa: ANN401 - any optimizer class
    """The state of one optimizer by parameter group."""
    rows, base, parts = [], class_of("torch", "Tensor"), namespace_of(optimizer)
    groups, state = parts.get("param_groups"), parts.get("state")
    known = {id(key): value for key, value in _items(state)}
    for number, group in enumerate(groups if type(groups) is list else ()):
        parameters = [item for item in dict(_items(group)).get("params", ()) if is_a(item, base)]
        kept = [[value for _, value in _items(known.get(id(item)))] for item in parameters]
        size = sum(base.nbytes.__get__(value) for values in kept for value in values if is_a(value, base))
        frozen = sum(
            bool(values) and not base.requires_grad.__get__(item)
            for item, values in zip(parameters, kept, strict=True)
        )
        rows.append(GroupRow(name_of(type(optimizer)), number, len(parameters), size, frozen))
    return rows


def _items(table: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - any object
    """The keys and values of a dictionary; none of anything else."""
    return list(dict.items(table)) if is_a(table, dict) else []
