"""Tree-search policy training; cycles are collected at fixed steps only.

As in large training codes, automatic collection is switched off so that the
pauses come at the same steps everywhere.
"""
import gc

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
gc.disable()

STATE, ACTIONS, STEPS, COLLECT_EVERY, DEPTH = 128, 8, 6000, 300, 40


class Node:
    def __init__(self, state, parent):
        self.state = state
        self.parent = parent
        self.children = []
        if parent is not None:
            parent.children.append(self)


def search(rng):
    root = Node(rng.standard_normal((8, STATE)), None)
    leaf = root
    for _ in range(DEPTH):
        for _ in range(2):
            child = Node(leaf.state + rng.standard_normal((8, STATE)), leaf)
        leaf = child
    return root, leaf


def main():
    rng = np.random.default_rng(0)
    policy = nn.Sequential(nn.Linear(STATE, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, ACTIONS))
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-4)
    for step in range(1, STEPS + 1):
        root, leaf = search(rng)
        path = []
        while leaf is not None:
            path.append(leaf.state[0])
            leaf = leaf.parent
        x = torch.from_numpy(np.stack(path)).float()
        target = x[:, :ACTIONS].argmax(1)
        loss = nn.functional.cross_entropy(policy(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % COLLECT_EVERY == 0:
            found = gc.collect()
            print(f"step {step} loss {loss.item():.4f} collected {found}", flush=True)


if __name__ == "__main__":
    main()
