"""Work that nothing waits for soon, done beside the rest: the device has room for it while larger products run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Beside:
    """A second order of work on a device; on a CPU there is one order only."""

    def __init__(self, device: str) -> None:
        """Open it.

        Args:
            device: Where the work is done.
        """
        on_cuda = torch.device(device).type == "cuda"
        self._stream: Any = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Do what follows beside the rest, once all that came before is done."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let what follows wait for all that was begun: what it reads may be written again from here on."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
