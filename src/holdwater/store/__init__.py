"""The folder of a run: its history in SQLite, its checkpoints, its resolved configuration."""

from holdwater.store.history import History, read_history
from holdwater.store.run_store import RunStore

__all__ = ["History", "RunStore", "read_history"]
