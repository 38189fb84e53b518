"""What the agent asks of those above it, which know the frameworks."""

from types import ModuleType
from typing import NamedTuple, Protocol


class Replaced(NamedTuple):
    """What replacing a loader worker has freed and cost."""

    freed_bytes: int
    seconds: float


class ReplaceableWorkers(Protocol):
    """The workers of all loaders of this process: a fresh one can take the place of one that has grown."""

    def watch(self, module: ModuleType) -> None:
        """Take note of each loader that starts workers."""

    def growth(self) -> int:
        """By how many bytes the living workers have grown since they were first looked at."""

    def replace(self) -> bool:
        """Begin to replace the worker that has grown most; False where none has grown enough, or none can be."""

    def turn(self) -> list[Replaced]:
        """Let old workers go whose last batches have arrived; return what that has freed and cost."""
