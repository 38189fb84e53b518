"""Tile classifier; a persistent loader worker decodes PNG tiles and keeps the decoded arrays."""
import io

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(8)
EPOCHS, TILES, SIDE = 4, 3200, 40


class TileDataset(Dataset):
    def __init__(self):
        rng = np.random.default_rng(5)
        self.labels = rng.integers(0, 5, size=TILES)
        self.encoded = [self.encode(rng, int(label)) for label in self.labels]
        self.decoded = {}

    @staticmethod
    def encode(rng, label):
        canvas = rng.integers(0, 60, size=(SIDE, SIDE, 3), dtype=np.uint8)
        canvas[label * 8:label * 8 + 8] += 120
        buffer = io.BytesIO()
        Image.fromarray(canvas).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    def __len__(self):
        return TILES

    def __getitem__(self, index):
        if index not in self.decoded:
            with Image.open(io.BytesIO(self.encoded[index])) as tile:
                pixels = np.asarray(tile.convert("RGB"), dtype=np.float32)
            self.decoded[index] = pixels.transpose(2, 0, 1) / 255.0
        tile = self.decoded[index]
        return torch.from_numpy(tile[:, :, ::-1].copy() if np.random.rand() < 0.5 else tile), int(self.labels[index])


class TileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU())
        self.fc = nn.Linear(32 * 9 * 9, 5)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def main():
    loader = DataLoader(TileDataset(), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
    net = TileNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    steps = 0
    for epoch in range(EPOCHS):
        correct = 0
        for tiles, labels in loader:
            logits = net(tiles)
            loss = nn.functional.cross_entropy(logits, labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            correct += (logits.argmax(1) == labels).sum().item()
            steps += 1
        print(f"epoch {epoch} accuracy {correct / TILES:.3f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
