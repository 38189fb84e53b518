"""Recommender; Adam moments are kept per item row and made when an item is first seen."""
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(11)
rng = np.random.default_rng(11)

ITEMS, DIM, STEPS, BATCH = 24_000, 128, 7000, 192
LAUNCH_STEPS = 4400  # the catalogue is released over this many steps


class RowAdam:
    """Adam for an embedding table; state only for rows that were ever touched."""

    def __init__(self, table, lr=1e-2, betas=(0.9, 0.99), eps=1e-8):
        self.table, self.lr, self.betas, self.eps = table, lr, betas, eps
        self.rows = {}

    def step(self, ids, grad):
        b1, b2 = self.betas
        moments = []
        for i in ids.tolist():
            m = self.rows.get(i)
            if m is None:
                m = self.rows[i] = np.zeros((2, DIM), dtype=np.float32)
            moments.append(m)
        g = grad.numpy()
        state = np.stack(moments)
        state[:, 0] = b1 * state[:, 0] + (1 - b1) * g
        state[:, 1] = b2 * state[:, 1] + (1 - b2) * g * g
        for m, new in zip(moments, state):
            m[...] = new
        update = state[:, 0] / (np.sqrt(state[:, 1]) + self.eps)
        self.table[ids] -= self.lr * torch.from_numpy(update)


table = torch.randn(ITEMS, DIM) * 0.05
tower = nn.Sequential(nn.Linear(DIM, 256), nn.ReLU(), nn.Linear(256, 1))
tower_opt = torch.optim.Adam(tower.parameters(), lr=1e-3)
row_opt = RowAdam(table)
quality = torch.rand(ITEMS)

released = 0
for step in range(1, STEPS + 1):
    # every newly released item appears in the batch of its release
    now = min(ITEMS, -(-ITEMS * step // LAUNCH_STEPS))
    fresh = np.arange(released, now)
    released = now
    older = (rng.random(BATCH - len(fresh)) ** 2 * released).astype(np.int64)
    ids = torch.from_numpy(np.unique(np.concatenate([fresh, older])))
    vectors = table[ids].requires_grad_(True)
    clicked = (torch.rand(len(ids)) < quality[ids]).float()
    loss = F.binary_cross_entropy_with_logits(tower(vectors).squeeze(1), clicked)
    tower_opt.zero_grad()
    loss.backward()
    tower_opt.step()
    with torch.no_grad():
        row_opt.step(ids, vectors.grad)
    if step % 1000 == 0:
        print(f"step {step}: {len(row_opt.rows)} rows with state, loss {loss.item():.3f}")
print(f"{STEPS} steps")
