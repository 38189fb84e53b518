"""Multi-scale detector pre-training with a persistent loader worker."""
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(31)
IMAGES, BATCH, SIDE, EPOCHS = 480, 12, 44, 45


class MultiScaleDataset(Dataset):
    """Resizes each image to a random scale and crops a fixed window from it."""

    def __init__(self, count):
        rng = np.random.default_rng(31)
        self.sources = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 8, count)
        self.scales = np.random.default_rng(77)
        self._resized = {}

    def __len__(self):
        return len(self.sources)

    def resized(self, index, scale):
        key = (index, round(scale, 5))
        if key not in self._resized:
            side = int(64 * scale)
            image = Image.fromarray(self.sources[index]).resize((side, side), Image.BILINEAR)
            self._resized[key] = np.array(image)
        return self._resized[key]

    def __getitem__(self, index):
        image = self.resized(index, float(self.scales.uniform(0.75, 1.1)))
        top, left = self.scales.integers(0, image.shape[0] - SIDE + 1, 2)
        crop = image[top:top + SIDE, left:left + SIDE].astype(np.float32) / 255.0
        return torch.from_numpy(crop).permute(2, 0, 1).contiguous(), int(self.labels[index])


def main():
    torch.set_num_threads(1)
    loader = DataLoader(MultiScaleDataset(IMAGES), batch_size=BATCH, shuffle=True, num_workers=1,
                        persistent_workers=True, prefetch_factor=2)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    steps = 0
    for epoch in range(EPOCHS):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        if epoch % 9 == 0:
            print(f"epoch {epoch} loss {loss.item():.4f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
