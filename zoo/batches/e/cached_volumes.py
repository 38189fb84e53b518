"""3-D patch segmentation with a caching data set."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(4)
VOLUMES, CACHE_NUM, SIDE, BATCH, EPOCHS = 2400, 700, 30, 2, 2


class CacheDataset(Dataset):
    """Deterministic transforms are applied once for the first cache_num items."""

    def __init__(self, items, cache_num):
        self.items = items
        self.cache_num = cache_num
        self._cache = [None] * cache_num

    def __len__(self):
        return len(self.items)

    def _load(self, index):
        rng = np.random.default_rng(self.items[index])
        volume = rng.standard_normal((SIDE, SIDE, SIDE), dtype=np.float32)
        centre, radius = rng.integers(8, SIDE - 8, 3), rng.uniform(3, 7)
        grid = np.indices(volume.shape).reshape(3, -1)
        inside = ((grid - centre[:, None]) ** 2).sum(0) < radius ** 2
        volume += 1.5 * inside.reshape(volume.shape)
        return torch.from_numpy(volume)[None], torch.from_numpy(inside.reshape(volume.shape)).float()[None]

    def __getitem__(self, index):
        if index >= self.cache_num:
            return self._load(index)
        if self._cache[index] is None:
            self._cache[index] = self._load(index)
        return self._cache[index]


loader = DataLoader(CacheDataset(list(range(VOLUMES)), CACHE_NUM), batch_size=BATCH, shuffle=True)
model = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv3d(8, 1, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
steps = 0
for epoch in range(EPOCHS):
    running = 0.0
    for image, mask in loader:
        loss = nn.functional.binary_cross_entropy_with_logits(model(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
        steps += 1
    print(f"epoch {epoch} loss {running / len(loader):.4f}")
print(f"{steps} steps")
