"""DQN on a toy chase task; transitions go to a bounded replay memory."""
import random
from collections import deque, namedtuple

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(24)
random.seed(24)

STEPS, CAPACITY, ACT_PER_STEP, OBS = 3000, 20000, 18, 640
Transition = namedtuple("Transition", "obs action reward next_obs")


class ReplayMemory:
    def __init__(self, capacity):
        self.memory = deque(maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, n):
        batch = random.sample(self.memory, min(n, len(self.memory)))
        obs, act, rew, nxt = zip(*batch)
        return (torch.from_numpy(np.stack(obs)), torch.tensor(act), torch.tensor(rew), torch.from_numpy(np.stack(nxt)))


def main():
    rng = np.random.default_rng(0)
    q = nn.Sequential(nn.Linear(OBS, 384), nn.ReLU(), nn.Linear(384, 4))
    target = nn.Sequential(nn.Linear(OBS, 384), nn.ReLU(), nn.Linear(384, 4))
    optimizer = torch.optim.Adam(q.parameters(), lr=5e-4)
    memory = ReplayMemory(CAPACITY)
    obs = rng.standard_normal(OBS, dtype=np.float32)
    for step in range(1, STEPS + 1):
        for _ in range(ACT_PER_STEP):
            action = random.randrange(4)
            nxt = rng.standard_normal(OBS, dtype=np.float32)
            memory.push(obs, action, float(obs[action]), nxt)
            obs = nxt
        if step % 200 == 0:
            target.load_state_dict(q.state_dict())
        o, a, r, n = memory.sample(96)
        with torch.no_grad():
            goal = r + 0.9 * target(n).max(1).values
        loss = nn.functional.smooth_l1_loss(q(o).gather(1, a[:, None]).squeeze(1), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.4f} replay {len(memory.memory)}", flush=True)


if __name__ == "__main__":
    main()
