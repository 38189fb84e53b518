"""A small convolutional network over a DataLoader with two workers that make and change pictures."""

import json

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stopwatch import Stopwatch


class Pictures(Dataset):
    """Pictures made from their number, cropped and turned at random, as torchvision's transforms would."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        chance = np.random.default_rng(index)
        picture = torch.from_numpy(chance.standard_normal((3, 36, 36), dtype=np.float32))
        picture[index % 3] += 0.5
        top, left = torch.randint(0, 4, (2,)).tolist()
        picture = picture[:, top : top + 32, left : left + 32]
        if torch.rand(1) < 0.5:
            picture = picture.flip(2)
        return picture, index % 3


def main() -> None:
    """Train seven epochs and evaluate after each."""
    torch.manual_seed(1)
    train = DataLoader(Pictures(4800), batch_size=32, shuffle=True, num_workers=2)
    test = DataLoader(Pictures(640), batch_size=64, num_workers=2)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 3),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    watch, losses = Stopwatch(), []
    for _ in range(7):
        model.train()
        running = 0.0
        for inputs, labels in train:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
            watch.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(inputs).argmax(1) == labels).sum().item() for inputs, labels in test)
        losses += [running, right]
    watch.write()
    print("LOSSES", json.dumps(losses))


if __name__ == "__main__":
    main()
