"""A NumPy generator is a field of the object that describes the run."""

from dataclasses import dataclass, field

import numpy as np

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


@dataclass
class Setup:
    """Of the run."""

    batch: int = 8
    noise: float = 0.05
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(4))


setup = Setup()
for _ in holdwater.steps(60):
    chosen = torch.from_numpy(setup.rng.integers(0, len(inputs), setup.batch))
    x = inputs[chosen] + setup.noise * torch.from_numpy(setup.rng.standard_normal((8, 8), dtype="float32"))
    loss = nn.functional.mse_loss(model(x), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
