"""Let all processes of a distributed training stop after the same step: the others wait for one that stops alone.

The process that must stop writes into the store of `torch.distributed` after which step, and every process looks
there at the end of each step. Data-parallel processes meet at each step, when they add up gradients, so none is
more than one step ahead: two steps later all of them have seen it.
"""

import sys
from typing import Any

from holdwater.signal_errors import not_the_scripts

LEAD = 2
"""Steps between the decision and the stop."""


class CommonStop:
    """One training's word in the store."""

    def __init__(self, number: int) -> None:
        """Prepare; in a process that trains alone it does nothing.

        Args:
            number: Of the training in this process: all processes begin their trainings in the same order.
        """
        distributed: Any = sys.modules.get("torch.distributed")
        together = distributed is not None and distributed.is_available() and distributed.is_initialized()
        self._distributed = distributed if together and distributed.get_world_size() > 1 else None
        self._key = f"holdwater/stop/{number}"
        self._store = None if self._distributed is None else _store_of(self._distributed)
        self._stop: tuple[int, str] | None = None

    @property
    def is_needed(self) -> bool:
        """Whether other processes train with this one."""
        return self._distributed is not None

    @property
    def rank(self) -> int:
        """The number of this process."""
        return 0 if self._distributed is None else int(self._distributed.get_rank())

    def agree(self, step: int, reason: str | None) -> str | None:
        """Whether all processes stop now.

        Args:
            step: That has ended.
            reason: Why this process wants to stop; None if it does not.

        Returns:
            Why they stop; None as long as they go on.
        """
        if self._stop is None and self._store is not None:
            if reason is not None:  # the first process that writes it decides
                self._store.compare_set(self._key, "", f"{step + LEAD} rank {self.rank}: {reason}")
            if self._store.check([self._key]):
                at, _, why = self._store.get(self._key).decode().partition(" ")
                self._stop = (int(at), why)
        return self._stop[1] if self._stop is not None and step >= self._stop[0] else None

    def wait_for_all(self) -> None:
        """Wait until every process has written its part of the checkpoint."""
        if self._distributed is not None:
            self._distributed.barrier()


def _store_of(distributed: Any) -> Any:  # noqa: ANN401 - a module, and a store, of torch
    """The store that all processes share; None where this version of torch has none."""
    try:
        return distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - there is no public name
    except not_the_scripts(Exception):
        return None
