"""Prioritised replay: transitions are Python objects in a ring, priorities in a sum tree."""
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)
rng = np.random.default_rng(5)

CAPACITY, OBS, STEPS, NEW_PER_STEP, BATCH = 18_000, 320, 7600, 4, 32


@dataclass(slots=True)
class Transition:
    obs: np.ndarray
    action: int
    reward: float
    next_obs: np.ndarray


class SumTree:
    def __init__(self, capacity):
        self.leaves = 1 << (capacity - 1).bit_length()
        self.tree = [0.0] * (2 * self.leaves)

    def update(self, index, priority):
        node = index + self.leaves
        delta = priority - self.tree[node]
        while node:
            self.tree[node] += delta
            node >>= 1

    def find(self, mass):
        node = 1
        while node < self.leaves:
            left = 2 * node
            if mass <= self.tree[left] or self.tree[left + 1] <= 0:
                node = left
            else:
                mass -= self.tree[left]
                node = left + 1
        return node - self.leaves


ring, tree, cursor = [], SumTree(CAPACITY), 0
net = nn.Sequential(nn.Linear(OBS, 192), nn.ReLU(), nn.Linear(192, 3))
optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4)
obs = rng.normal(size=OBS).astype(np.float32)

for step in range(1, STEPS + 1):
    for _ in range(NEW_PER_STEP):
        action = int(rng.integers(3))
        nxt = (0.95 * obs + rng.normal(0, 0.3, OBS) + 0.02 * (action - 1)).astype(np.float32)
        item = Transition(obs, action, float(nxt.mean()), nxt.copy())
        if len(ring) < CAPACITY:
            ring.append(item)
        else:
            ring[cursor] = item  # overwrite the oldest
        tree.update(cursor, 1.0)
        cursor = (cursor + 1) % CAPACITY
        obs = nxt
    picks = [min(tree.find(u * tree.tree[1]), len(ring) - 1) for u in rng.random(BATCH)]
    batch = [ring[i] for i in picks]
    s = torch.from_numpy(np.stack([b.obs for b in batch]))
    s2 = torch.from_numpy(np.stack([b.next_obs for b in batch]))
    with torch.no_grad():
        goal = torch.tensor([b.reward for b in batch]) + 0.9 * net(s2).max(1).values
    td = goal - net(s)[torch.arange(BATCH), [b.action for b in batch]]
    loss = td.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for i, error in zip(picks, td.detach().abs().tolist()):
        tree.update(i, (error + 1e-3) ** 0.6)
    if step % 500 == 0:
        print(f"step {step}: {len(ring)} transitions, loss {loss.item():.4f}")
print(f"{STEPS} steps")
