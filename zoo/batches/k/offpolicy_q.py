"""Off-policy Q-learning on a toy control problem with a preallocated replay buffer."""
import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
OBS, ACT = 256, 6


class ReplayBuffer:
    def __init__(self, capacity):
        self.capacity, self.pos, self.full = capacity, 0, False
        self.obs = np.zeros((capacity, OBS), dtype=np.float32)
        self.next_obs = np.zeros((capacity, OBS), dtype=np.float32)
        self.act = np.zeros(capacity, dtype=np.int64)
        self.rew = np.zeros(capacity, dtype=np.float32)

    def add(self, obs, next_obs, act, rew):
        p = self.pos
        self.obs[p], self.next_obs[p], self.act[p], self.rew[p] = obs, next_obs, act, rew
        self.pos = (p + 1) % self.capacity
        self.full |= self.pos == 0

    def sample(self, n):
        i = rng.integers(0, self.capacity if self.full else self.pos, n)
        return [torch.from_numpy(a[i]) for a in (self.obs, self.next_obs, self.act, self.rew)]


dynamics = (rng.standard_normal((ACT, OBS)) * 0.3).astype(np.float32)
goal = rng.standard_normal(OBS).astype(np.float32)
q = nn.Sequential(nn.Linear(OBS, 384), nn.ReLU(), nn.Linear(384, ACT))
target = nn.Sequential(nn.Linear(OBS, 384), nn.ReLU(), nn.Linear(384, ACT))
target.load_state_dict(q.state_dict())
opt = torch.optim.Adam(q.parameters(), lr=5e-4)
buffer = ReplayBuffer(60000)
obs = rng.standard_normal(OBS).astype(np.float32)
for step in range(1, 6001):
    with torch.no_grad():
        greedy = int(q(torch.from_numpy(obs)[None]).argmax())
    for k in range(22):
        act = greedy if k % 4 == 0 else int(rng.integers(ACT))
        nxt = 0.95 * obs + dynamics[act] + 0.05 * rng.standard_normal(OBS, dtype=np.float32)
        buffer.add(obs, nxt, act, -float(np.abs(nxt - goal).mean()))
        obs = nxt
    o, n, a, r = buffer.sample(192)
    with torch.no_grad():
        y = r + 0.95 * target(n).max(1).values
    loss = nn.functional.smooth_l1_loss(q(o).gather(1, a[:, None]).squeeze(1), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        target.load_state_dict(q.state_dict())
    if step % 600 == 0:
        print(f"step {step} loss {loss.item():.4f} stored {buffer.capacity if buffer.full else buffer.pos}", flush=True)
