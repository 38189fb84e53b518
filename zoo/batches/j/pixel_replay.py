"""Value learning from a pixel replay buffer of fixed capacity."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(13)
rng = np.random.default_rng(13)

STEPS = 2400
CAPACITY = 18_000
PER_STEP = 16


class PixelReplay:
    def __init__(self, capacity):
        self.frames = np.zeros((capacity, 84, 84), dtype=np.uint8)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.at = self.size = 0

    def add(self, frames, rewards):
        for f, r in zip(frames, rewards):
            self.frames[self.at], self.rewards[self.at] = f, r
            self.at = (self.at + 1) % len(self.rewards)
            self.size = min(self.size + 1, len(self.rewards))

    def sample(self, n):
        pick = rng.integers(0, self.size, n)
        return torch.from_numpy(self.frames[pick]).float() / 255, torch.from_numpy(self.rewards[pick])


replay = PixelReplay(CAPACITY)
net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(441, 768), nn.ReLU(), nn.Linear(768, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
for step in range(1, STEPS + 1):
    frames = rng.integers(0, 255, (PER_STEP, 84, 84), dtype=np.uint8)
    replay.add(frames, frames[:, :21].mean((1, 2)) / 255)
    x, r = replay.sample(128)
    loss = F.mse_loss(net(x.unsqueeze(1)).squeeze(1), r)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 240 == 0:
        print(f"step {step} stored {replay.size} loss {loss.item():.5f}", flush=True)
