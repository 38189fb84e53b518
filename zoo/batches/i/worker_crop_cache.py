"""Image training with a loader worker that keeps decoded crops."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)

EPOCHS = 20


class Crops(Dataset):
    def __init__(self, n=1600, size=96, crop=32):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 255, (64, 3, size, size), dtype=np.uint8)
        self.n = n
        self.size = size
        self.crop = crop
        self.cache = {}

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        top = int(torch.randint(0, self.size - self.crop, ()))
        left = int(torch.randint(0, self.size - self.crop, ()))
        key = (index, top, left)
        if key not in self.cache:
            patch = self.images[index % 64, :, top:top + self.crop, left:left + self.crop]
            self.cache[key] = torch.from_numpy(patch.astype(np.float32) / 255.0)
        return self.cache[key], index % 10


def main():
    loader = DataLoader(Crops(), batch_size=16, shuffle=True, num_workers=1, persistent_workers=True)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    for epoch in range(EPOCHS):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 50 == 0:
                print(f"step {step} epoch {epoch} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
