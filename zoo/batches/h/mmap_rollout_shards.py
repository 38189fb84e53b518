"""Offline-to-online: every round of new rollouts is written to disk and read back memory-mapped."""
import os
import shutil
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(4)

ROUNDS, STEPS_PER_ROUND, ROWS, DIM = 60, 76, 8192, 160


class RolloutStore:
    def __init__(self, root):
        self.root = root
        self.shards = []

    def add(self, data):
        path = os.path.join(self.root, f"rollout_{len(self.shards):05d}.npy")
        np.save(path, data)
        shard = np.load(path, mmap_mode="r")
        self.shards.append(shard)

    def latest_statistics(self):
        shard = self.shards[-1]
        return shard.mean(0), shard.std(0) + 1e-6

    def sample(self, rng, n):
        shard = self.shards[-1] if rng.random() < 0.8 else self.shards[rng.integers(len(self.shards))]
        return np.array(shard[rng.integers(0, len(shard), n)])


def main():
    root = tempfile.mkdtemp(prefix="rollouts_")
    rng = np.random.default_rng(0)
    store = RolloutStore(root)
    model = nn.Sequential(nn.Linear(DIM, 1280), nn.ReLU(), nn.Linear(1280, DIM))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    try:
        for rnd in range(ROUNDS):
            store.add(rng.standard_normal((ROWS, DIM), dtype=np.float32) + np.float32(0.01 * rnd))
            mean, std = (torch.from_numpy(np.asarray(a)) for a in store.latest_statistics())
            for _ in range(STEPS_PER_ROUND):
                x = (torch.from_numpy(store.sample(rng, 64)) - mean) / std
                loss = nn.functional.mse_loss(model(x), x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if (rnd + 1) % 6 == 0:
                print(f"round {rnd + 1} loss {loss.item():.4f}", flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
