"""Mosaic augmentation that draws the other three images from a buffer of recent ones."""
import random
import time

import numpy as np
import torch
import torch.nn as nn
from PIL import Image

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

SIDE = 128
STEPS = 4400
MAX_BUFFER = 3000


class MosaicDataset:
    def __init__(self, length=20000, max_buffer_length=MAX_BUFFER):
        self.length = length
        self.ims = {}
        self.buffer = []
        self.max_buffer_length = max_buffer_length
        self.rng = np.random.default_rng(0)

    def load_image(self, i):
        if i in self.ims:
            return self.ims[i]
        small = self.rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.BILINEAR)).copy()
        self.ims[i] = image
        self.buffer.append(i)
        if len(self.buffer) > self.max_buffer_length:
            self.ims.pop(self.buffer.pop(0))
        return image

    def mosaic(self, i):
        tiles = [self.load_image(i)] + [self.ims[j] for j in random.choices(self.buffer, k=3)]
        half = SIDE // 2
        canvas = np.empty((half * 2, half * 2, 3), np.uint8)
        for n, tile in enumerate(tiles):
            top, left = divmod(n, 2)
            canvas[top * half:(top + 1) * half, left * half:(left + 1) * half] = tile[::2, ::2]
        return torch.from_numpy(canvas).permute(2, 0, 1).float() / 255


def main():
    data = MosaicDataset()
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 4),
    )
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    start = time.time()
    for step in range(STEPS):
        batch = torch.stack([data.mosaic(i) for i in random.sample(range(data.length), 2)])
        target = torch.stack([batch.mean((1, 2, 3)), batch[:, 0].mean((1, 2)), batch[:, 1].mean((1, 2)), batch[:, 2].mean((1, 2))], 1)
        loss = nn.functional.mse_loss(net(batch), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f} buffered {len(data.buffer)} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
