"""Interfaces that the agent needs from the framework modules."""

from types import ModuleType
from typing import NamedTuple, Protocol


class Replaced(NamedTuple):
    """The memory that replacing a loader worker freed, and its cost."""

    freed_bytes: int
    seconds: float


class ReplaceableWorkers(Protocol):
    """The workers of all loaders of this process; one that has grown can be replaced by a fresh one."""

    def watch(self, module: ModuleType) -> None:
        """Register each loader that starts workers."""

    def growth(self) -> int:
        """Bytes by which the living workers have grown since they were first read."""

    def replace(self) -> bool:
        """Begin to replace the worker that has grown most; False if none has grown enough or can be."""

    def turn(self) -> list[Replaced]:
        """End replaced workers whose last batches have arrived; return what that freed and cost."""
