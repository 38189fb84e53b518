"""REINFORCE on a small pixel corridor, with every sixth episode recorded for later inspection."""
import atexit

import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(0)


class Corridor:
    def __init__(self, size=40):
        self.size = size

    def reset(self):
        self.pos, self.t = self.size // 2, 0
        return self.render()

    def render(self):
        img = torch.zeros(3, 48, self.size)
        img[0, :, self.pos] = 1.0
        img[1] = torch.rand(48, self.size) * 0.1
        return img

    def step(self, action):
        self.pos = max(0, min(self.size - 1, self.pos + (1 if action else -1)))
        self.t += 1
        done = self.t >= 20 or self.pos in (0, self.size - 1)
        return self.render(), float(self.pos == self.size - 1) - 0.01, done


class EpisodeRecorder:
    """Keeps the frames of one episode and writes the file when it is closed."""

    def __init__(self, name, length=24):
        self.name = name
        self.frames = torch.zeros(length, 3, 96, 80)
        self.n = 0
        self.closed = False
        atexit.register(self.close)

    def capture(self, frame):
        up = nn.functional.interpolate(frame[None], scale_factor=2)[0]
        self.frames[self.n % len(self.frames)].copy_(up)
        self.n += 1

    def close(self):
        if not self.closed:
            self.closed = True
            self.mean_brightness = self.frames[: self.n].mean().item()


env = Corridor()
policy = nn.Sequential(nn.Conv2d(3, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 5, stride=2), nn.ReLU(),
                       nn.Flatten(), nn.Linear(24 * 9 * 7, 64), nn.ReLU(), nn.Linear(64, 2))
opt = torch.optim.Adam(policy.parameters(), lr=3e-4)

for episode in range(1, 1201):
    recorder = EpisodeRecorder(f"episode-{episode}") if episode % 6 == 0 else None
    obs, logps, rewards, done = env.reset(), [], [], False
    while not done:
        dist = Categorical(logits=policy(obs[None]))
        action = dist.sample()
        logps.append(dist.log_prob(action))
        obs, reward, done = env.step(action.item())
        rewards.append(reward)
        if recorder is not None:
            recorder.capture(obs)
    if recorder is not None:
        recorder.close()
    returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
    loss = -(torch.cat(logps) * (returns - returns.mean())).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if episode % 100 == 0:
        print(f"episode {episode} return {sum(rewards):.3f} loss {loss.item():.3f}", flush=True)
