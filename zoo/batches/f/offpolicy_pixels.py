"""Q-learning on small pixel observations with a fixed-capacity replay memory."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, ENVS, CAPACITY = 3200, 6, 10500
SHAPE = (1, 56, 56)


class ReplayMemory:
    def __init__(self, capacity):
        self.capacity = capacity
        self.obs = np.zeros((capacity, *SHAPE), dtype=np.uint8)
        self.next_obs = np.zeros((capacity, *SHAPE), dtype=np.uint8)
        self.actions = np.zeros(capacity, dtype=np.int64)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.pos, self.size = 0, 0

    def add(self, obs, action, reward, next_obs):
        self.obs[self.pos] = obs
        self.next_obs[self.pos] = next_obs
        self.actions[self.pos], self.rewards[self.pos] = action, reward
        self.pos = (self.pos + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, n, rng):
        rows = rng.integers(0, self.size, size=n)
        scale = lambda a: torch.from_numpy(a[rows]).float() / 255
        return scale(self.obs), torch.from_numpy(self.actions[rows]), torch.from_numpy(self.rewards[rows]), scale(self.next_obs)


class QNet(nn.Module):
    def __init__(self, actions=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 12, 8, stride=4), nn.ReLU(), nn.Conv2d(12, 16, 4, stride=2), nn.ReLU(), nn.Flatten())
        self.q = nn.Sequential(nn.Linear(16 * 25, 128), nn.ReLU(), nn.Linear(128, actions))

    def forward(self, x):
        return self.q(self.features(x))


def main():
    rng = np.random.default_rng(8)
    memory, net, target = ReplayMemory(CAPACITY), QNet(), QNet()
    opt = torch.optim.Adam(net.parameters(), lr=2e-4)
    frames = rng.integers(0, 255, size=(ENVS, *SHAPE), dtype=np.uint8)
    for step in range(STEPS):
        if step % 200 == 0:
            target.load_state_dict(net.state_dict())
        moves = rng.integers(0, 4, size=ENVS)
        following = np.roll(frames, shift=int(moves[0]) - 1, axis=2)
        following[:, :, 0, :] = rng.integers(0, 255, size=(ENVS, 1, SHAPE[2]), dtype=np.uint8)
        for e in range(ENVS):
            memory.add(frames[e], moves[e], float(following[e].mean() > 127), following[e])
        frames = following
        obs, act, rew, nxt = memory.sample(32, rng)
        with torch.no_grad():
            goal = rew + 0.95 * target(nxt).amax(1)
        loss = nn.functional.smooth_l1_loss(net(obs).gather(1, act.unsqueeze(1)).squeeze(1), goal)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f} stored {memory.size}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
