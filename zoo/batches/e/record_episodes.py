"""REINFORCE on a moving-dot world; every episode is rendered and saved."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(2)
rng = np.random.default_rng(2)
STEPS, WIDTH, HEIGHT = 7000, 240, 200


class DotWorld:
    def reset(self):
        self.position, self.goal = rng.random(2), rng.random(2)
        self.left = int(rng.integers(180, 360))
        return self.observation()

    def observation(self):
        return np.concatenate([self.position, self.goal, [self.left / 360]]).astype(np.float32)

    def step(self, action):
        move = np.array([(0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)][action])
        self.position = np.clip(self.position + move, 0, 1)
        self.left -= 1
        return self.observation(), -float(np.abs(self.position - self.goal).sum()), self.left == 0

    def render(self):
        frame = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        for (x, y), colour in ((self.position, (200, 0, 0)), (self.goal, (0, 120, 0))):
            row, column = int(y * (HEIGHT - 8)), int(x * (WIDTH - 8))
            frame[row:row + 8, column:column + 8] = colour
        return frame


class RecordVideo:
    def __init__(self, env, folder):
        self.env, self.folder, self.frames, self.episode = env, folder, [], 0

    def reset(self):
        if self.frames:
            clip = np.stack(self.frames[::4])
            np.save(os.path.join(self.folder, f"episode-{self.episode % 5}.npy"), clip)
            self.episode += 1
            self.frames = []
        return self.env.reset()

    def step(self, action):
        result = self.env.step(action)
        self.frames.append(self.env.render())
        return result


policy = nn.Sequential(nn.Linear(5, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 4))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-4)
with tempfile.TemporaryDirectory() as folder:
    env = RecordVideo(DotWorld(), folder)
    observation, baseline = env.reset(), 0.0
    for step in range(STEPS):
        choice = torch.distributions.Categorical(logits=policy(torch.from_numpy(observation)))
        action = choice.sample()
        observation, reward, done = env.step(action.item())
        baseline = 0.99 * baseline + 0.01 * reward
        optimizer.zero_grad()
        (-choice.log_prob(action) * (reward - baseline)).backward()
        optimizer.step()
        if done:
            print(f"step {step} episode {env.episode} baseline {baseline:.3f}")
            observation = env.reset()
print(f"{STEPS} steps")
