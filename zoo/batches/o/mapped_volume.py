"""Patches of a large volume kept in a raw file; a sweep over all slices comes before the later passes."""
import mmap
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(16)

SLICES = 900
SIDE = 256
STEPS = 3600


def write_volume(path):
    rng = np.random.default_rng(16)
    with open(path, "wb") as f:
        for _ in range(SLICES):
            f.write(rng.normal(size=(SIDE, SIDE)).astype(np.float32).tobytes())


def main():
    fd, path = tempfile.mkstemp(suffix=".raw")
    os.close(fd)
    try:
        write_volume(path)
        with open(path, "rb") as f:
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        volume = np.frombuffer(mapped, dtype=np.float32).reshape(SLICES, SIDE, SIDE)
        net = nn.Sequential(nn.Conv2d(1, 24, 5, stride=2), nn.ReLU(), nn.Conv2d(24, 24, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        for step in range(STEPS):
            z = step if step < SLICES else int(torch.randint(SLICES, (1,)))
            plane = torch.tensor(volume[z])
            patches = plane.unfold(0, 64, 64).unfold(1, 64, 64).reshape(-1, 1, 64, 64)
            loss = nn.functional.mse_loss(net(patches)[:, 0], patches.std((1, 2, 3)))
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 200 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
    finally:
        os.unlink(path)


if __name__ == "__main__":
    main()
