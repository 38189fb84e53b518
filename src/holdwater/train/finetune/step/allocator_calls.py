"""Proof that steps take no memory: what the allocator of the device counts between two points of each step."""

from typing import Any

import torch


class AllocatorCalls:
    """Counts the steps that asked the allocator of a CUDA device for nothing."""

    def __init__(self, *, enabled: bool) -> None:
        """Begin.

        Args:
            enabled: Whether there is such a device.
        """
        self._enabled = enabled
        self._before = 0
        self.steps, self.quiet, self.in_a_row = 0, 0, 0
        """Steps of this process, those without a call, and those in a row until now."""

    def begin(self) -> None:
        """A step begins."""
        self._before = self._asked()

    def end(self) -> None:
        """Its loss is known."""
        if not self._enabled:
            return
        calls = self._asked() - self._before
        self.steps += 1
        self.quiet += calls == 0
        self.in_a_row = 0 if calls else self.in_a_row + 1

    def counts(self) -> dict[str, Any]:
        """For the verdict; empty where nothing can be counted."""
        counts = {"steps": self.steps, "without_allocator_call": self.quiet, "in_a_row": self.in_a_row}
        return {"static_step": counts} if self.steps else {}

    def __str__(self) -> str:
        """For people; empty where nothing can be counted."""
        if not self.steps:
            return ""
        return f"; the last {self.in_a_row} of {self.steps} steps of this process asked the allocator for nothing"

    def _asked(self) -> int:
        """How often memory was asked for so far: 11 µs."""
        if not self._enabled:
            return 0
        known = torch.cuda.memory.memory_stats_as_nested_dict()
        return int(known["allocation"]["all"]["allocated"]) if known else 0
