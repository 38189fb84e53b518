"""Streaming classification with an incremental shuffle buffer that starts small."""
import random

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, IterableDataset

torch.set_num_threads(1)
torch.manual_seed(0)


def clips(seed):
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 1, 1500, dtype=np.float32)
    while True:
        y = int(rng.integers(0, 10))
        yield np.sin(base * (y + 2) * 9 + rng.uniform(0, 6)).astype(np.float32) + \
            0.3 * rng.standard_normal(1500, dtype=np.float32), y


def shuffled(stream, bufsize, initial, rng):
    buf = []
    for sample in stream:
        buf.append(sample)
        if len(buf) < bufsize:
            extra = next(stream, None)
            if extra is not None:
                buf.append(extra)
        if len(buf) >= initial:
            k = rng.randrange(len(buf))
            buf[k], buf[-1] = buf[-1], buf[k]
            yield buf.pop()


class Clips(IterableDataset):
    def __iter__(self):
        return shuffled(clips(0), bufsize=34000, initial=200, rng=random.Random(0))


model = nn.Sequential(nn.Linear(1500, 384), nn.ReLU(), nn.Linear(384, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
loader = iter(DataLoader(Clips(), batch_size=16))
for step in range(1, 5501):
    x, y = next(loader)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 500 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
