"""DataLoader whose workers each keep decoded samples in a cache of limited size."""
import zlib
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(14)

N, CACHE_ITEMS, BATCH, EPOCHS = 6000, 3600, 8, 4


class CompressedImages(Dataset):
    """Images live compressed; decoding is slow, so every worker caches what it decoded."""

    def __init__(self):
        rng = np.random.default_rng(14)
        self.blobs = []
        for i in range(N):
            coarse = rng.integers(0, 255, (3, 4, 4), dtype=np.uint8)
            self.blobs.append(zlib.compress(coarse.repeat(8, 1).repeat(8, 2).tobytes()))
        self.cache = {}

    def __len__(self):
        return N

    def decode(self, i):
        flat = np.frombuffer(zlib.decompress(self.blobs[i]), dtype=np.uint8)
        return flat.reshape(3, 32, 32).astype(np.float32) / 255

    def __getitem__(self, i):
        image = self.cache.get(i)
        if image is None:
            image = self.decode(i)
            if len(self.cache) < CACHE_ITEMS:
                self.cache[i] = image
        return torch.from_numpy(image), int(image[0].mean() > image[1].mean())


def main():
    loader = DataLoader(CompressedImages(), batch_size=BATCH, shuffle=True, num_workers=2,
                        persistent_workers=True, prefetch_factor=4)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                          nn.Flatten(), nn.Linear(96, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(EPOCHS):
        correct = 0
        for x, y in loader:
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((logits.argmax(1) == y).sum())
            steps += 1
        print(f"epoch {epoch}: accuracy {correct / N:.3f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
