"""Short-term load forecasting: windows are normalised by their own history."""
import time
from functools import lru_cache

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
HOURS, METERS, LOOKBACK, HORIZON = 60_000, 12, 336, 24

t = np.arange(HOURS)
load = np.stack([
    np.sin(2 * np.pi * t / 24 + p) + 0.4 * np.sin(2 * np.pi * t / 168) + 0.1 * rng.standard_normal(HOURS)
    for p in rng.uniform(0, 6, METERS)
]).astype(np.float32)


@lru_cache(maxsize=None)
def window(meter, start):
    piece = torch.tensor(load[meter, start:start + LOOKBACK + HORIZON])
    history = piece[:LOOKBACK]
    return piece.sub_(history.mean()).div_(history.std() + 1e-5)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.GRU(24, 64, batch_first=True)
        self.head = nn.Linear(64, HORIZON)

    def forward(self, x):
        days = x.unflatten(1, (LOOKBACK // 24, 24))
        return self.head(self.body(days)[0][:, -1])


model = Forecaster()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
STEPS, BATCH = 5800, 24
began = time.time()
for step in range(1, STEPS + 1):
    meters = rng.integers(0, METERS, BATCH)
    starts = rng.integers(0, HOURS - LOOKBACK - HORIZON, BATCH)
    batch = torch.stack([window(int(m), int(s)) for m, s in zip(meters, starts)])
    x, y = batch[:, :LOOKBACK], batch[:, LOOKBACK:]
    loss = nn.functional.smooth_l1_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.4f} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
