"""Training data is augmented in a process pool whose worker is replaced now and then."""
import multiprocessing as mp

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 2600
KERNELS = {}


def warp(seed):
    rng = np.random.default_rng(seed)
    images = rng.random((56, 40, 40), dtype=np.float32)
    shift = tuple(rng.integers(-9, 10, 2))
    sigma = round(float(rng.uniform(0.5, 4.0)), 4)
    key = (shift, sigma)
    if key not in KERNELS:
        y, x = np.mgrid[-20:20, -20:20]
        window = np.exp(-((x - shift[0]) ** 2 + (y - shift[1]) ** 2) / (2 * sigma ** 2))
        KERNELS[key] = np.fft.fft2(np.stack([window * np.cos(k * x / 6) for k in range(24)]))
    response = np.fft.ifft2(np.fft.fft2(images) * KERNELS[key][0]).real
    return response.astype(np.float32), (images.mean((1, 2)) > 0.5).astype(np.int64)


def main():
    ctx = mp.get_context("fork")
    with ctx.Pool(1, maxtasksperchild=300) as pool:
        model = nn.Sequential(nn.Flatten(), nn.Linear(1600, 256), nn.ReLU(), nn.Linear(256, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        pending = pool.apply_async(warp, (0,))
        for step in range(1, STEPS + 1):
            x, y = pending.get()
            pending = pool.apply_async(warp, (step,))
            loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 25 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
