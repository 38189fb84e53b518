"""An `IterableDataset` that shuffles in a buffer."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import holdwater
from tiny import data, final, network, show


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows from a buffer, in an order that a generator of its own draws."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        dice, buffer = random.Random(3), []  # noqa: S311 - no secret
        for row in zip(*data(), strict=True):
            buffer.append(row)
            if len(buffer) > 20:
                yield buffer.pop(dice.randrange(len(buffer)))
        yield from buffer


model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for x, y in holdwater.batches(DataLoader(Stream(), batch_size=8), steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
