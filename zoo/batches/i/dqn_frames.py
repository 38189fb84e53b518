"""DQN on a toy grid with a frame replay buffer."""
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
torch.set_num_threads(1)

STEPS = 3000
ENVS = 8


class ReplayBuffer:
    def __init__(self, capacity, shape):
        self.obs = np.zeros((capacity, *shape), dtype=np.uint8)
        self.next_obs = np.zeros((capacity, *shape), dtype=np.uint8)
        self.action = np.zeros(capacity, dtype=np.int64)
        self.reward = np.zeros(capacity, dtype=np.float32)
        self.capacity = capacity
        self.pos = 0
        self.full = False

    def add(self, obs, action, reward, next_obs):
        for i in range(len(obs)):
            self.obs[self.pos] = obs[i]
            self.next_obs[self.pos] = next_obs[i]
            self.action[self.pos] = action[i]
            self.reward[self.pos] = reward[i]
            self.pos = (self.pos + 1) % self.capacity
            self.full = self.full or self.pos == 0

    def sample(self, n):
        idx = np.random.randint(0, self.capacity if self.full else self.pos, n)
        as_float = lambda a: torch.from_numpy(a[idx].astype(np.float32) / 255.0)
        return as_float(self.obs), torch.from_numpy(self.action[idx]), torch.from_numpy(self.reward[idx]), as_float(self.next_obs)


class Grid:
    def __init__(self, n):
        self.xy = np.random.randint(0, 84, (n, 2))

    def render(self):
        frames = np.full((len(self.xy), 84, 84), 8, dtype=np.uint8)
        for i, (x, y) in enumerate(self.xy):
            frames[i, max(0, y - 3):y + 4, max(0, x - 3):x + 4] = 255
        return frames

    def step(self, action):
        move = np.array([[0, 3], [0, -3], [3, 0], [-3, 0]])[action]
        self.xy = np.clip(self.xy + move, 0, 83)
        return -np.abs(self.xy - 42).sum(1).astype(np.float32) / 84


def main():
    q = nn.Sequential(nn.Unflatten(1, (1, 84)), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(441, 128), nn.ReLU(), nn.Linear(128, 4))
    optimizer = torch.optim.Adam(q.parameters(), lr=5e-4)
    buffer = ReplayBuffer(11_000, (84, 84))
    env = Grid(ENVS)
    obs = env.render()
    for step in range(1, STEPS + 1):
        with torch.no_grad():
            action = q(torch.from_numpy(obs.astype(np.float32) / 255.0)).argmax(1).numpy()
        explore = np.random.rand(ENVS) < 0.2
        action = np.where(explore, np.random.randint(0, 4, ENVS), action)
        reward = env.step(action)
        next_obs = env.render()
        buffer.add(obs, action, reward, next_obs)
        obs = next_obs
        o, a, r, n = buffer.sample(32)
        with torch.no_grad():
            target = r + 0.95 * q(n).max(1).values
        loss = nn.functional.smooth_l1_loss(q(o).gather(1, a[:, None]).squeeze(1), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f} reward {reward.mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
