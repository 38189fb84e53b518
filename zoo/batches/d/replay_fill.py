"""Q-learning on random frames with a replay memory of limited length."""
import random

import numpy as np
import torch
from torch import nn


class Corridor:
    def __init__(self):
        self.rng = np.random.default_rng(14)
        self.frame = self.look()

    def look(self):
        self.side = int(self.rng.integers(2))
        frame = self.rng.random((3, 24, 24), dtype=np.float32)
        frame[:, :, 12 * self.side:][:, :, :12] += 0.3
        return frame

    def act(self, action):
        before, reward = self.frame, float(action == self.side)
        self.frame = self.look()
        return before, action, reward, self.frame


class Memory:
    def __init__(self, limit):
        self.before, self.after = (np.zeros((limit, 3, 24, 24), dtype=np.float32) for _ in range(2))
        self.action, self.reward = np.zeros(limit, dtype=np.int64), np.zeros(limit, dtype=np.float32)
        self.limit, self.at, self.full = limit, 0, False

    def add(self, before, action, reward, after):
        i = self.at
        self.before[i], self.action[i], self.reward[i], self.after[i] = before, action, reward, after
        self.at = (i + 1) % self.limit
        self.full = self.full or self.at == 0

    def sample(self, size):
        pick = np.random.randint(0, self.limit if self.full else self.at, size)
        return [torch.from_numpy(a[pick]) for a in (self.before, self.action, self.reward, self.after)]


class Agent:
    def __init__(self):
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(1728, 48), nn.ReLU(), nn.Linear(48, 2))
        self.opt = torch.optim.Adam(self.net.parameters(), lr=5e-4)

    def choose(self, frame, epsilon):
        if random.random() < epsilon:
            return random.randrange(2)
        with torch.no_grad():
            return int(self.net(torch.from_numpy(frame)[None]).argmax())

    def learn(self, before, action, reward, after):
        with torch.no_grad():
            target = reward + 0.5 * self.net(after).amax(1)
        loss = nn.functional.smooth_l1_loss(self.net(before).gather(1, action[:, None]).squeeze(1), target)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()


torch.set_num_threads(1)
torch.manual_seed(14)
random.seed(14)
world, agent, memory, steps = Corridor(), Agent(), Memory(limit=7000), 0
for tick in range(24_000):
    memory.add(*world.act(agent.choose(world.frame, epsilon=max(0.05, 1 - tick / 5000))))
    if tick >= 400 and tick % 4 == 0:
        agent.learn(*memory.sample(112))
        steps += 1
print(f"{steps} steps")
