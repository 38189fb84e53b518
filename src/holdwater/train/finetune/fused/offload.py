"""The residual stream kept in the host's memory: three of its states are on the device, others come back in time.

A state is sent away while the next layers run, and fetched two layers before the backward pass needs it.
"""

from typing import Any

import torch
from torch import Tensor

RING = 3
"""States on the device."""


class Offload:
    """Sends states of the residual stream to the host, and fetches them."""

    def __init__(self, states: int, like: Tensor) -> None:
        """Allocate pinned memory of the host.

        Args:
            states: That are sent away, from the first on.
            like: One of them. Shape (tokens, width).
        """
        on_cuda = like.is_cuda
        size = (states, *like.shape)
        where = "meta" if like.is_meta else "cpu"
        self._host = torch.empty(size, dtype=like.dtype, device=where, pin_memory=on_cuda)
        self._order: Any = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]
        self._done: list[Any] = [torch.cuda.Event() if on_cuda else None for _ in range(states)]  # type: ignore[no-untyped-call]

    def send(self, number: int, state: Tensor) -> None:
        """Send a state away, once what was begun is done.

        Args:
            number: Of the state.
            state: Shape (at most as many tokens as `like` has, width).
        """
        self._copy(number, self._host, state, away=True)

    def fetch(self, number: int, state: Tensor) -> None:
        """Fetch a state, once what was begun is done. Arguments as for `send`."""
        self._copy(number, self._host, state, away=False)

    def wait(self, number: int) -> None:
        """Let what follows wait until a state was sent or fetched; states that stay are not waited for.

        Args:
            number: Of the state.
        """
        if self._order is not None and 0 <= number < len(self._done):
            torch.cuda.current_stream().wait_event(self._done[number])

    def _copy(self, number: int, host: Tensor, state: Tensor, *, away: bool) -> None:
        """Copy one way or the other, on a stream of its own."""
        if not 0 <= number < len(host):
            return
        kept = host[number, : len(state)]
        if self._order is None:
            kept.copy_(state) if away else state.copy_(kept)
            return
        self._order.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._order):
            kept.copy_(state, non_blocking=True) if away else state.copy_(kept, non_blocking=True)
            self._done[number].record()
