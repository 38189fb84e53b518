"""One thing that has grown between two counts."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from holdwater.attribution.links import PathPart
from holdwater.attribution.weights import Weight

Kind = Literal["container", "graph", "value", "instances", "gradients", "rebound"]
"""How it grows; rebound: an MLX array is set again under a name, and may keep what it was computed from."""

INTERPRETERS = "interpreter's"
"""A trait of tables of the interpreter's own: they count if a line of the program was seen to add to them."""


@dataclass(slots=True)
class Gain:
    """Something that has grown: by how much, and its holder."""

    kind: Kind
    type: str
    """Type of the container, the value or the instances."""
    count: int
    """Elements, graph nodes or instances gained."""
    weight: Weight
    """Bytes gained."""
    elements: dict[str, int] = field(default_factory=dict)
    """Types of the new elements, of a sample."""
    nodes: int = 0
    """Graph nodes gained."""
    files: int = 0
    """Bytes of mapped files and shared memory behind the new elements."""
    views: bool = False
    """Whether the new elements are small views of much larger arrays or tensors."""
    handles: int = 0
    """New elements that are threads, processes, files or sockets."""
    arrays: int = 0
    """MLX arrays gained."""
    array_bytes: int = 0
    """Their bytes when they have been evaluated."""
    bases: dict[str, float] = field(default_factory=dict)
    """Classes that the new elements are instances of, with the share of them."""
    traits: list[str] = field(default_factory=list)
    """Other properties of the new elements: see `traits`; also `of weights`, `chain`, `INTERPRETERS`."""
    stands: list[tuple[str, int]] = field(default_factory=list)
    """Where new elements that are threads stand: file and line of the program, the most frequent first."""
    path: tuple[PathPart, ...] = ()
    naming: PathPart | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON, for the watcher."""
        return asdict(self)
