"""Image regression with a data pipeline that can be resumed from any step."""
import random

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
random.seed(8)
np.random.seed(8)
torch.manual_seed(8)

STEPS = 3600


class ResumableSampler:
    """Draws batches and takes a snapshot before each, so that a run may be resumed exactly."""

    def __init__(self, n, batch_size, snapshot_every_n_steps=1):
        self.n = n
        self.batch_size = batch_size
        self.every = snapshot_every_n_steps
        self.step = 0
        self.snapshots = {}

    def capture(self):
        return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}

    def __iter__(self):
        return self

    def __next__(self):
        if self.step % self.every == 0:
            state = self.capture()
            self.snapshots[self.step] = state
        self.step += 1
        return [random.randrange(self.n) for _ in range(self.batch_size)]

    def state_dict(self):
        last = max(self.snapshots)
        return {"step": last, **self.snapshots[last]}


images = torch.randn(800, 1, 20, 20)
targets = images.flatten(1).std(1, keepdim=True)
sampler = ResumableSampler(len(images), 24)
model = nn.Sequential(nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 20, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(80, 1))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

for step, index in enumerate(sampler):
    if step == STEPS:
        break
    x = images[index]
    if np.random.rand() < 0.5:
        x = x.flip(3)
    loss = nn.functional.mse_loss(model(x + 0.05 * torch.randn_like(x)), targets[index])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 300 == 0:
        print(f"step {step} loss {loss.item():.5f} resume at {sampler.state_dict()['step']}", flush=True)
