"""Denoising autoencoder on a synthetic sensor stream."""
import itertools

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, IterableDataset

torch.set_num_threads(1)
torch.manual_seed(0)


class SensorStream(IterableDataset):
    def __init__(self, width=512, seed=0):
        self.width, self.seed = width, seed

    def __iter__(self):
        rng = np.random.default_rng(self.seed)
        grid = np.arange(self.width, dtype=np.float32) / self.width
        while True:
            f, phase = rng.uniform(1, 20), rng.uniform(0, 6.28)
            clean = np.sin(6.28 * f * grid + phase).astype(np.float32)
            yield clean + 0.2 * rng.standard_normal(self.width, dtype=np.float32), clean


def collate(samples):
    noisy, clean = zip(*samples)
    return torch.from_numpy(np.stack([np.stack(noisy), np.stack(clean)]))


loader = DataLoader(SensorStream(), batch_size=24, collate_fn=collate)
batches = itertools.cycle(loader)   # never run out of data

model = nn.Sequential(nn.Linear(512, 384), nn.GELU(), nn.Linear(384, 64), nn.GELU(),
                      nn.Linear(64, 384), nn.GELU(), nn.Linear(384, 512))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
running = 0.0
for step in range(1, 4001):
    noisy, clean = next(batches)
    loss = (model(noisy) - clean).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    running = 0.98 * running + 0.02 * loss.item()
    if step % 400 == 0:
        print(f"step {step} mse {running:.4f}", flush=True)
