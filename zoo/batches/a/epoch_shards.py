import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(7)
ROWS, WIDTH, EPOCHS, BATCH = 2048, 300, 56, 256


class AugmentedShards:
    """Every epoch trains on a freshly augmented shard that is written once and then mapped."""

    def __init__(self, directory, seed=0):
        self.directory = directory
        self.rng = np.random.default_rng(seed)
        self.base = self.rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
        self.opened = {}

    def write(self, epoch):
        path = os.path.join(self.directory, f"shard-{epoch:04d}.bin")
        noise = self.rng.standard_normal(WIDTH, dtype=np.float32) * 0.1
        (self.base + noise).tofile(path)
        return path

    def open(self, path):
        if path not in self.opened:
            shard = np.memmap(path, dtype=np.float32, mode="r", shape=(ROWS, WIDTH))
            self.opened[path] = shard
        return self.opened[path]

    def batches(self, epoch):
        shard = self.open(self.write(epoch))
        order = self.rng.permutation(ROWS)
        for begin in range(0, ROWS, BATCH):
            yield torch.from_numpy(shard[order[begin:begin + BATCH]])


def main():
    model = nn.Sequential(nn.Linear(WIDTH, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512),
                          nn.ReLU(), nn.Linear(512, WIDTH))
    print("autoencoder", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = 0
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        shards = AugmentedShards(directory)
        for epoch in range(EPOCHS):
            for x in shards.batches(epoch):
                for _ in range(2):
                    loss = nn.functional.mse_loss(model(x + 0.05 * torch.randn_like(x)), x)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    steps += 1
            if epoch % 7 == 6:
                print("epoch", epoch + 1, f"{loss.item():.4f}", flush=True)
        print("finished", steps, flush=True)


if __name__ == "__main__":
    main()
