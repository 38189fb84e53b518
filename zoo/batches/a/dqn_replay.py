import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(10)
FRAME, CAPACITY, ENV_STEPS, TRAIN_EVERY = 84 * 84, 11_000, 18_000, 6


class ReplayBuffer:
    def __init__(self, capacity, seed=0):
        self.observations = np.zeros((capacity, FRAME), dtype=np.uint8)
        self.actions = np.zeros(capacity, dtype=np.int64)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.capacity, self.position, self.full = capacity, 0, False
        self.rng = np.random.default_rng(seed)

    def add(self, observation, action, reward):
        self.observations[self.position] = observation
        self.actions[self.position] = action
        self.rewards[self.position] = reward
        self.position += 1
        if self.position == self.capacity:
            self.full, self.position = True, 0

    def sample(self, count):
        top = self.capacity if self.full else self.position - 1
        index = self.rng.integers(0, top, size=count)
        following = (index + 1) % self.capacity
        return [torch.from_numpy(a) for a in (self.observations[index], self.actions[index], self.rewards[index],
                                              self.observations[following])]


class PixelEnv:
    def __init__(self, seed=1):
        self.rng = np.random.default_rng(seed)
        self.background = self.rng.integers(0, 255, size=FRAME, dtype=np.uint8)

    def step(self, action):
        frame = np.roll(self.background, int(self.rng.integers(0, FRAME)))
        return frame, float(frame[0] > 127) - 0.1 * action


def main():
    buffer, env = ReplayBuffer(CAPACITY), PixelEnv()
    q = nn.Sequential(nn.Linear(FRAME, 96), nn.ReLU(), nn.Linear(96, 4))
    print("q network", sum(p.numel() for p in q.parameters()), flush=True)
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-4)
    observation, _ = env.step(0)
    for step in range(1, ENV_STEPS + 1):
        action = step % 4
        following, reward = env.step(action)
        buffer.add(observation, action, reward)
        observation = following
        if step > 300 and step % TRAIN_EVERY == 0:
            obs, actions, rewards, nxt = buffer.sample(32)
            with torch.no_grad():
                target = rewards + 0.99 * q(nxt.float() / 255).max(1).values
            value = q(obs.float() / 255).gather(1, actions[:, None]).squeeze(1)
            loss = nn.functional.smooth_l1_loss(value, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % 3000 == 0:
            print(step, f"{loss.item():.4f}", flush=True)
    print("finished", ENV_STEPS, flush=True)


if __name__ == "__main__":
    main()
