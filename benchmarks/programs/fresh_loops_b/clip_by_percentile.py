"""Gradients are clipped at a percentile of recent norms: a deque in a registered dictionary, with two holders."""

import collections

import numpy as np
import torch
from torch import nn

import holdwater

torch.manual_seed(2)
history = {"norms": collections.deque(maxlen=12), "clipped": 0}
model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=5e-2, momentum=0.8)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("history", history)


class PercentileClip:
    """AutoClip (Seetharaman et al., 2020)."""

    def __init__(self, parameters, norms, percentile):
        self.parameters = list(parameters)
        self.norms = norms
        self.percentile = percentile

    def __call__(self):
        norm = torch.stack([p.grad.norm() for p in self.parameters]).norm().item()
        self.norms.append(norm)
        limit = float(np.percentile(self.norms, self.percentile))
        nn.utils.clip_grad_norm_(self.parameters, limit)
        return norm > limit


clip = PercentileClip(model.parameters(), history["norms"], 40)
for _ in holdwater.steps(40):
    x = torch.randn(16, 5)
    y = x.abs().sum(1, keepdim=True) + torch.randn(16, 1).exp()
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    history["clipped"] += clip()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("clipped", history["clipped"])
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
