"""Speaker embedding head on features that are precomputed and memory-mapped."""
import os
import tempfile
import time

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)

CLIPS, FRAMES, BANDS = 9000, 80, 80
SPEAKERS = 40


def precompute(path):
    rng = np.random.default_rng(0)
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(CLIPS, FRAMES, BANDS))
    for i in range(0, CLIPS, 500):
        store[i:i + 500] = rng.standard_normal((500, FRAMES, BANDS), dtype=np.float32)
    store.flush()


class FeatureStore(Dataset):
    def __init__(self, path):
        self.features = np.load(path, mmap_mode="r")

    def __len__(self):
        return CLIPS

    def __getitem__(self, i):
        return torch.from_numpy(np.array(self.features[i])), i % SPEAKERS


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(BANDS, 96, 5, padding=2), nn.ReLU(), nn.Conv1d(96, 96, 3, padding=1), nn.ReLU()
        )
        self.out = nn.Linear(192, SPEAKERS)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2))
        return self.out(torch.cat([y.mean(-1), y.std(-1)], 1))


def main():
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "features.npy")
    precompute(path)
    loader = DataLoader(FeatureStore(path), batch_size=10, shuffle=True)
    net = Embedder()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    start, step = time.time(), 0
    for epoch in range(3):
        for x, y in loader:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
            if step % 300 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
