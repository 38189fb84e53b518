"""Samples are changed at random by loader workers that live for an epoch."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import holdwater
from tiny import data, final, network, show


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Rows with noise, scaled and turned."""

    def __init__(self) -> None:
        self.inputs, self.targets = data()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.inputs[index] + 0.1 * torch.randn(8)
        row = row.flip(0) if random.random() < 0.5 else row  # noqa: S311 - no secret
        return row * float(np.random.uniform(0.9, 1.1)), self.targets[index]  # noqa: NPY002 - as many do


model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for x, y in holdwater.batches(DataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=2), steps=40):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
