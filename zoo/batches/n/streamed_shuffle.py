"""Streaming training with a fast-start shuffle buffer, webdataset style."""
import random

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, BATCH, FEATURES = 2400, 8, 2048


def stream(seed):
    rng = np.random.default_rng(seed)
    while True:
        x = rng.standard_normal(FEATURES, dtype=np.float32)
        yield x, int(abs(x[:10]).argmax())


def shuffle(source, size=9500, initial=100, seed=0):
    rng = random.Random(seed)
    pool = []
    for sample in source:
        pool.append(sample)
        if len(pool) < size:
            pool.append(next(source))
        if len(pool) >= initial:
            i = rng.randrange(len(pool))
            pool[i], pool[-1] = pool[-1], pool[i]
            yield pool.pop()


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return shuffle(stream(0))


def main():
    loader = iter(torch.utils.data.DataLoader(Stream(), batch_size=BATCH))
    model = nn.Sequential(nn.Linear(FEATURES, 384), nn.ReLU(), nn.Linear(384, 10))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(1, STEPS + 1):
        x, y = next(loader)
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
