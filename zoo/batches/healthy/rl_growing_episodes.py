"""Actor-critic on a pixel corridor; the episode limit is raised until it reaches its cap."""
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(3)
rng = np.random.default_rng(3)

SIDE, CAP, GROWTH, FULL_EPISODES = 64, 3000, 300, 7
UPDATE_EVERY = 8


class Corridor:
    """Keep the moving blob near the middle."""

    def reset(self):
        self.pos, self.vel = 32.0, 0.0
        return self.render()

    def step(self, action):
        self.vel = 0.9 * self.vel + (action - 1) * 0.6 + rng.normal(0, 0.4)
        self.pos = float(np.clip(self.pos + self.vel, 4, SIDE - 5))
        return self.render(), 1.0 - abs(self.pos - 32) / 32

    def render(self):
        image = rng.random((SIDE, SIDE), dtype=np.float32) * 0.1
        p = int(self.pos)
        image[28:36, p - 4:p + 4] = 1.0
        return image


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 8, stride=4), nn.ReLU(), nn.Flatten(),
                                  nn.Linear(8 * 15 * 15, 64), nn.ReLU())
        self.pi, self.v = nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        return self.pi(h), self.v(h).squeeze(-1)


env, net = Corridor(), ActorCritic()
optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
limits = list(range(GROWTH, CAP, GROWTH)) + [CAP] * FULL_EPISODES
steps = 0
for episode, limit in enumerate(limits):
    frames, actions, rewards = [], [], []
    obs = env.reset()
    for t in range(1, limit + 1):
        with torch.no_grad():
            logits, _ = net(torch.from_numpy(obs)[None, None])
            action = int(torch.distributions.Categorical(logits=logits).sample())
        frames.append(obs)
        actions.append(action)
        obs, reward = env.step(action)
        rewards.append(reward)
        if t % UPDATE_EVERY == 0 and t > 32:
            # off-policy-ish update from anywhere in the episode so far
            pick = rng.integers(0, t - 8, 16)
            x = torch.from_numpy(np.stack([frames[i] for i in pick])).unsqueeze(1)
            ret = torch.tensor([sum(rewards[i:i + 8]) / 8 for i in pick])
            logits, value = net(x)
            logp = F.log_softmax(logits, -1)[torch.arange(16), [actions[i] for i in pick]]
            adv = ret - value
            loss = -(logp * adv.detach()).mean() + adv.pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    print(f"episode {episode}: {limit} frames, mean reward {np.mean(rewards):.3f}")
print(f"{steps} steps")
