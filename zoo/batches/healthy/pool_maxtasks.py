"""Training batches from simulator processes that are replaced after a number of tasks."""
from collections import deque
import multiprocessing as mp
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

STEPS, WORKERS, TASKS_PER_CHILD, IN_FLIGHT = 2400, 2, 120, 6
GRID = 160

_terrain = {}  # per process: the simulator keeps every terrain it has made


def simulate(seed):
    """A random terrain and short trajectories of a ball on it."""
    rng = np.random.default_rng(seed)
    height = _terrain.get(seed)
    if height is None:
        noise = rng.normal(size=(GRID, GRID))
        height = _terrain[seed] = noise.cumsum(0).cumsum(1) / GRID
    gy, gx = np.gradient(height)
    pos = rng.uniform(20, GRID - 20, (32, 2))
    start = pos.copy()
    patches = []
    for p in pos.astype(int):
        patches.append(height[p[0] - 8:p[0] + 8, p[1] - 8:p[1] + 8].ravel())
    for _ in range(5):
        cell = pos.astype(int).clip(0, GRID - 1)
        pos = pos - np.stack([gy[cell[:, 0], cell[:, 1]], gx[cell[:, 0], cell[:, 1]]], 1)
    return np.float32(patches), np.float32(pos - start)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(15)
    model = nn.Sequential(nn.Linear(256, 384), nn.GELU(), nn.Linear(384, 384), nn.GELU(),
                          nn.Linear(384, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    # the simulator never forgets a terrain, hence maxtasksperchild
    with mp.get_context("fork").Pool(WORKERS, maxtasksperchild=TASKS_PER_CHILD) as pool:
        queue, seed = deque(), 0
        for step in range(1, STEPS + 1):
            while len(queue) < IN_FLIGHT:
                queue.append(pool.apply_async(simulate, (seed,)))
                seed += 1
            x, delta = queue.popleft().get()
            x = torch.from_numpy(x)
            x = (x - x.mean(1, keepdim=True)) / (x.std() + 1e-6)
            loss = F.smooth_l1_loss(model(x), torch.from_numpy(delta))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 300 == 0:
                print(f"step {step}: loss {loss.item():.4f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
