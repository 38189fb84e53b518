"""Segmentation of map tiles that an exporter writes during the run; sizes are read from headers."""
import os
import tempfile
import time

import numpy as np
import torch
import torch.nn as nn
from PIL import Image

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 1700


class TileExporter:
    def __init__(self, root):
        self.root = root
        self.rng = np.random.default_rng(0)
        self.count = 0

    def next(self):
        h, w = (int(v) for v in self.rng.integers(40, 64, 2))
        path = os.path.join(self.root, f"tile_{self.count:05d}.png")
        Image.fromarray(self.rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path, compress_level=1)
        self.count += 1
        return path


class SizeIndex:
    """Image headers by path, to group tiles of like size without decoding them."""

    def __init__(self):
        self.headers = {}

    def size(self, path):
        if path not in self.headers:
            self.headers[path] = Image.open(path)
        return self.headers[path].size


def load_crop(path, size, side=40):
    with Image.open(path) as image:
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        crop = image.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float().div_(255)


def main():
    folder = tempfile.TemporaryDirectory()
    exporter, index = TileExporter(folder.name), SizeIndex()
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 2, 1)
    )
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    start = time.time()
    recent = []
    for step in range(STEPS):
        if step % 2 == 0:
            recent = (recent + [exporter.next()])[-4:]
        batch = torch.stack([load_crop(p, index.size(p)) for p in recent])
        target = (batch.mean(1) > 0.5).long()
        loss = nn.functional.cross_entropy(net(batch), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} tiles {exporter.count} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
