"""Off-policy value learning from a preallocated replay buffer."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, CAPACITY, ENVS, OBS = 2600, 22400, 16, 1200


class ReplayBuffer:
    def __init__(self):
        self.obs = np.zeros((CAPACITY, OBS), dtype=np.float32)
        self.next_obs = np.zeros((CAPACITY, OBS), dtype=np.float32)
        self.reward = np.zeros(CAPACITY, dtype=np.float32)
        self.pos, self.full = 0, False

    def add(self, obs, next_obs, reward):
        where = (self.pos + np.arange(len(obs))) % CAPACITY
        self.obs[where], self.next_obs[where], self.reward[where] = obs, next_obs, reward
        self.full = self.full or self.pos + len(obs) >= CAPACITY
        self.pos = (self.pos + len(obs)) % CAPACITY

    def sample(self, rng, count):
        rows = rng.integers(0, CAPACITY if self.full else self.pos, count)
        return (torch.from_numpy(a[rows]) for a in (self.obs, self.next_obs, self.reward))


def main():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer()
    value = nn.Sequential(nn.Linear(OBS, 384), nn.ReLU(), nn.Linear(384, 1))
    opt = torch.optim.Adam(value.parameters(), lr=1e-4)
    obs = rng.standard_normal((ENVS, OBS), dtype=np.float32)
    for step in range(1, STEPS + 1):
        following = 0.9 * obs + 0.3 * rng.standard_normal((ENVS, OBS), dtype=np.float32)
        buffer.add(obs, following, obs[:, 0])
        obs = following
        now, after, reward = buffer.sample(rng, 64)
        with torch.no_grad():
            target = reward[:, None] + 0.95 * value(after)
        loss = nn.functional.mse_loss(value(now), target)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} stored {CAPACITY if buffer.full else buffer.pos}", flush=True)


if __name__ == "__main__":
    main()
