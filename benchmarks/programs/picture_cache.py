"""Fine-tune a small vision model on large pictures, with a data set that keeps each picture that it has decoded.

    python picture_cache.py FOLDER EPOCHS

Written as many are: a picture is opened and decoded when it is first asked for, and kept at its full size, so that
the second epoch is faster.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

SIDE = 112


class Pictures(Dataset):
    """The JPEG files of a folder, decoded once."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index not in self.decoded:
            with Image.open(self.paths[index]) as file:
                self.decoded[index] = file.convert("RGBA")
        small = self.decoded[index].resize((SIDE, SIDE), reducing_gap=2.0).convert("RGB")
        return torch.from_numpy(np.asarray(small).transpose(2, 0, 1) / 255.0).float()


torch.manual_seed(1)
torch.set_num_threads(1)
pictures = Pictures(Path(sys.argv[1]))
loader = DataLoader(pictures, batch_size=8, shuffle=True)
tower = nn.Sequential(
    *(nn.Conv2d(3, 16, 8, stride=4), nn.GELU(), nn.Conv2d(16, 32, 4, stride=2), nn.GELU()),
    *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64)),
)
head = nn.Linear(64, 1)
optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=1e-3)
for _ in range(int(sys.argv[2])):
    for batch in loader:
        brightness = batch.mean((1, 2, 3))
        loss = nn.functional.mse_loss(head(tower(batch))[:, 0], brightness)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print("LOSS", loss.item())
