"""The next batch is made in a thread while this one is learned."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
generator = torch.Generator().manual_seed(2)


def make():
    """A batch."""
    chosen = torch.randint(0, len(inputs), (8,), generator=generator)
    return inputs[chosen], targets[chosen]


pool = ThreadPoolExecutor(1)
coming = pool.submit(make)
holdwater.resumable("generator", generator)
for _ in holdwater.steps(60):
    x, y = coming.result()
    coming = pool.submit(make)
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
pool.shutdown()
final(model)
