"""Two persistent loader workers that cache decoded samples by index (each ends with the whole set)."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(27)


class CachedImages(Dataset):
    def __init__(self, n=1600, dim=128 * 128):
        self.n, self.dim = n, dim
        self.cache = {}

    def __len__(self):
        return self.n

    def _decode(self, index):
        rng = np.random.default_rng(index)
        return rng.standard_normal(self.dim, dtype=np.float32) + np.float32((index % 4) * 0.05)

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = self._decode(index)
        return torch.from_numpy(self.cache[index].reshape(128, 128)[::4, ::4].copy()), index % 4


def main():
    loader = DataLoader(CachedImages(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    for epoch in range(18):
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
