"""Automatic garbage collection off, manual collection every couple of hundred steps (no stragglers)."""
import gc

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(26)

STEPS, GC_INTERVAL = 3600, 240


class Rollout:
    """A sampled path whose nodes know their path and vice versa."""

    def __init__(self, rng, horizon=96, dim=1024):
        self.states = rng.standard_normal((horizon, dim), dtype=np.float32)
        self.nodes = [Node(self, t) for t in range(4)]

    def returns(self):
        return torch.from_numpy(np.concatenate([node.window() for node in self.nodes]))


class Node:
    def __init__(self, rollout, t):
        self.rollout, self.t = rollout, t

    def window(self):
        return self.rollout.states[self.t * 12:(self.t + 1) * 12, :128]


def main():
    gc.disable()
    gc.collect()
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 128))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        x = Rollout(rng).returns()
        loss = nn.functional.mse_loss(model(x), x.roll(1, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % GC_INTERVAL == 0:
            gc.collect()
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
