"""Patch regression with a caching dataset behind a persistent loader worker."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(2)


class CropDataset(Dataset):
    """Random crops of big scans; decoded crops are remembered because decoding is slow."""

    def __init__(self, n=1600, size=512, crop=48):
        self.n, self.size, self.crop = n, size, crop
        self._decoded = {}

    def __len__(self):
        return self.n

    def _decode(self, index, top, left):
        rng = np.random.default_rng(index * 7919 + top)
        patch = rng.standard_normal((self.crop, self.crop), dtype=np.float32)
        return patch + np.float32((index % 10) / 10.0)

    def __getitem__(self, index):
        top, left = np.random.randint(0, self.size - self.crop, 2)
        key = (index, int(top), int(left))
        if key not in self._decoded:
            self._decoded[key] = self._decode(*key)
        return torch.from_numpy(self._decoded[key]), np.float32((index % 10) / 10.0)


def main():
    loader = DataLoader(CropDataset(), batch_size=16, shuffle=True, num_workers=1, persistent_workers=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 512), nn.ReLU(), nn.Linear(512, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(24):
        total = 0.0
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            step += 1
        print(f"epoch {epoch} step {step} loss {total / len(loader):.4f}", flush=True)


if __name__ == "__main__":
    main()
