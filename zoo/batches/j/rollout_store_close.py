"""Policy gradient on a toy control task; each round has its own rollout store."""
import atexit

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(3)
rng = np.random.default_rng(3)

ROUNDS = 70
UPDATES = 32
LENGTH = 4096
DIM = 160


class RolloutStore:
    def __init__(self, length, dim):
        self.states = rng.standard_normal((length, dim), dtype=np.float32)
        self.returns = np.zeros(length, dtype=np.float32)
        self.open = True
        atexit.register(self.close)

    def fill(self, weights):
        self.returns[:] = np.tanh(self.states @ weights)

    def sample(self, n):
        at = rng.integers(0, len(self.returns), n)
        return torch.from_numpy(self.states[at]), torch.from_numpy(self.returns[at])

    def close(self):
        self.open = False


policy = nn.Sequential(nn.Linear(DIM, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
truth = rng.standard_normal(DIM).astype(np.float32) / DIM ** 0.5

for round_no in range(1, ROUNDS + 1):
    store = RolloutStore(LENGTH, DIM)
    store.fill(truth)
    for _ in range(UPDATES):
        s, r = store.sample(256)
        loss = (policy(s).squeeze(1) - r).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    store.close()
    if round_no % 10 == 0:
        print(f"round {round_no} updates {round_no * UPDATES} loss {loss.item():.4f}", flush=True)
