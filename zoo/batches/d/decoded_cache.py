"""Small image classifier that keeps decoded pictures after the first read of each."""
import io

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

SIDE, COUNT = 64, 1600


class Pictures(Dataset):
    def __init__(self):
        rng = np.random.default_rng(12)
        self.labels = rng.integers(0, 4, COUNT)
        self.files = [self.encode(rng, int(label)) for label in self.labels]
        self.decoded = {}

    def encode(self, rng, label):
        pixels = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[:, :, label % 3] += 40 * (1 + label // 3)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        if i not in self.decoded:
            picture = Image.open(io.BytesIO(self.files[i]))
            self.decoded[i] = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
        return self.decoded[i], int(self.labels[i])


def main(epochs=18):
    torch.set_num_threads(1)
    torch.manual_seed(12)
    loader = DataLoader(Pictures(), batch_size=6, shuffle=True)
    model = nn.Sequential(nn.Conv2d(3, 40, 5, stride=2), nn.ReLU(), nn.Conv2d(40, 24, 3, stride=3), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 4))
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    steps = 0
    for epoch in range(epochs):
        for pictures, label in loader:
            loss = nn.functional.cross_entropy(model(pictures), label)
            opt.zero_grad()
            loss.backward()
            opt.step()
            steps += 1
        print(f"epoch {epoch}: {loss.item():.3f}")
    print(f"{steps} steps")


main()
