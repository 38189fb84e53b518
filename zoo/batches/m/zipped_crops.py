"""Classify crops stored in one zip archive; each epoch draws its own subset."""
import io
import os
import random
import tempfile
import time
import zipfile

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

FILES = 5000
EPOCHS = 80
PER_EPOCH = 512


def write_archive(path):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(FILES):
            buf = io.BytesIO()
            np.save(buf, rng.integers(0, 255, (3, 24, 24), dtype=np.uint8))
            archive.writestr(f"train/class_{i % 10:02d}/image_{i:06d}.npy", buf.getvalue())


class ZippedCrops(Dataset):
    opened = []

    def __init__(self, path, size):
        self.archive = zipfile.ZipFile(path)
        ZippedCrops.opened.append(self.archive)
        self.names = random.sample(self.archive.namelist(), size)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        name = self.names[i]
        image = np.load(io.BytesIO(self.archive.read(name)))
        label = int(name.split("/")[1][-2:])
        return torch.from_numpy(image).float() / 255, label


def main():
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "crops.zip")
    write_archive(path)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 25, 10),
    )
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    start, step = time.time(), 0
    for epoch in range(EPOCHS):
        loader = DataLoader(ZippedCrops(path, PER_EPOCH), batch_size=32, shuffle=True)
        for image, label in loader:
            loss = nn.functional.cross_entropy(net(image), label)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        if epoch % 5 == 0:
            print(f"epoch {epoch} step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")
    for archive in ZippedCrops.opened:
        archive.close()


if __name__ == "__main__":
    main()
