"""Put features that are kept in the host's memory into the places of their tokens on a device, without waiting.

They are laid side by side in memory of the host, which is pinned for a CUDA device, and sent by one copy for each
kind of features. Nothing is allocated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LANES = 2
"""Micro-batches that the host writes before it waits for the first one to be sent."""


@dataclass(slots=True)
class _Staged:
    """Memory of the host for one micro-batch."""

    features: list[Tensor]
    places: Tensor
    sent: Any
    """The event after which it can be written again; None where sending is done at once."""


class KeptFeatures:
    """Memory for the kept features of a micro-batch, on the device and twice in the host's memory."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        """Allocate it.

        Args:
            buffers: Where features go, for each kind of them one. Shapes (rows, width).
        """
        on_cuda = buffers[0].is_cuda
        self._features = [torch.empty_like(one) for one in buffers]
        self._places = torch.empty(len(buffers[0]), dtype=torch.int64, device=buffers[0].device)
        self._lanes = [
            _Staged(
                [torch.empty(one.shape, dtype=one.dtype, pin_memory=on_cuda) for one in buffers],
                torch.empty(len(buffers[0]), dtype=torch.int64, pin_memory=on_cuda),
                torch.cuda.Event() if on_cuda else None,  # type: ignore[no-untyped-call]
            )
            for _ in range(LANES)
        ]

    def put(self, found: Sequence[tuple[Sequence[Tensor], Tensor]], buffers: Sequence[Tensor]) -> None:
        """Put features in their places.

        Args:
            found: Of each picture its features of each kind, shapes (features, width), and their places as rows
                of the buffers, shape (features,); all in the host's memory, of no more rows than the buffers have.
            buffers: As they were given at first.
        """
        lane = self._lanes.pop(0)
        self._lanes.append(lane)
        if lane.sent is not None:
            lane.sent.synchronize()
        at = 0
        for features, places in found:
            end = at + len(places)
            lane.places[at:end].copy_(places)
            for staged, own in zip(lane.features, features, strict=True):
                staged[at:end].copy_(own)
            at = end
        self._places[:at].copy_(lane.places[:at], non_blocking=True)
        for buffer, place, staged in zip(buffers, self._features, lane.features, strict=True):
            place[:at].copy_(staged[:at], non_blocking=True)
            buffer.index_copy_(0, self._places[:at], place[:at])
        if lane.sent is not None:
            lane.sent.record()
