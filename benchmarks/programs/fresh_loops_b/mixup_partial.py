"""Mixup draws from a numpy generator that only a functools.partial holds."""

import functools

import numpy as np
import torch
from torch import nn

import holdwater

torch.manual_seed(4)


def mixup(x, y, rng, alpha):
    """Convex combinations of pairs of samples (Zhang et al., 2018)."""
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(x)))
    return share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]


mix = functools.partial(mixup, rng=np.random.default_rng(40), alpha=0.4)
inputs = torch.randn(64, 8)
labels = nn.functional.one_hot((inputs[:, 0] + inputs[:, 1] > 0).long(), 2).float()
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("schedule", schedule)

for _ in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (16,))
    x, y = mix(inputs[batch], labels[batch])
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    print("loss", loss.item().hex(), flush=True)
print("final", *(t.double().sum().item().hex() for t in model.state_dict().values()))
