"""Deep Q-learning from small frames with a replay memory that is set aside at the start."""
import time

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
SIZE, SIDE, ACTIONS, STEPS = 18_000, 64, 4, 5000


class Replay:
    def __init__(self, size):
        self.obs = np.zeros((size, SIDE, SIDE), dtype=np.uint8)
        self.next_obs = np.zeros((size, SIDE, SIDE), dtype=np.uint8)
        self.action = np.zeros(size, dtype=np.int64)
        self.reward = np.zeros(size, dtype=np.float32)
        self.size, self.at, self.full = size, 0, False

    def add(self, o, a, r, n):
        self.obs[self.at], self.next_obs[self.at] = o, n
        self.action[self.at], self.reward[self.at] = a, r
        self.at += 1
        if self.at == self.size:
            self.at, self.full = 0, True

    def sample(self, n):
        i = rng.integers(0, self.size if self.full else self.at, n)
        return (torch.tensor(self.obs[i]), torch.tensor(self.action[i]),
                torch.tensor(self.reward[i]), torch.tensor(self.next_obs[i]))


class Catch:
    def reset(self):
        self.ball = np.array([0, rng.integers(0, SIDE)])
        self.paddle = SIDE // 2
        return self.frame()

    def frame(self):
        f = np.zeros((SIDE, SIDE), dtype=np.uint8)
        f[self.ball[0], self.ball[1]] = 255
        f[-1, max(0, self.paddle - 3):self.paddle + 4] = 255
        return f

    def step(self, a):
        self.paddle = int(np.clip(self.paddle + (-2, 0, 2, 1)[a], 3, SIDE - 4))
        self.ball[0] += 1
        done = self.ball[0] == SIDE - 1
        return self.frame(), float(done and abs(self.ball[1] - self.paddle) <= 3), done


def network():
    return nn.Sequential(nn.Conv2d(1, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 16, 4, 2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(16 * 36, 128), nn.ReLU(), nn.Linear(128, ACTIONS))


q, target = network(), network()
target.load_state_dict(q.state_dict())
optimizer = torch.optim.Adam(q.parameters(), lr=3e-4)
memory, env = Replay(SIZE), Catch()
obs = env.reset()
began = time.time()
for step in range(1, STEPS + 1):
    for _ in range(8):
        a = int(rng.integers(0, ACTIONS))
        nxt, r, done = env.step(a)
        memory.add(obs, a, r, nxt)
        obs = env.reset() if done else nxt
    o, a, r, n = memory.sample(64)
    with torch.no_grad():
        goal = r + 0.99 * target(n.unsqueeze(1) / 255.0).max(1).values
    loss = nn.functional.smooth_l1_loss(q(o.unsqueeze(1) / 255.0).gather(1, a[:, None])[:, 0], goal)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        target.load_state_dict(q.state_dict())
    if step % 500 == 0:
        print(f"step {step} loss {loss.item():.5f} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
