from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(30)


@dataclass
class Episode:
    seed: int
    transitions: list = field(default_factory=list)
    total: float = 0.0
    completed: ClassVar[list] = []

    def record(self, obs, action, reward):
        entry = {"obs": obs.tolist(), "action": action, "reward": reward, "t": len(self.transitions)}
        self.transitions.append(entry)
        self.total += reward

    def close(self):
        Episode.completed.append(self)
        return self.total

    @classmethod
    def mean_return(cls, last=20):
        tail = cls.completed[-last:]
        return sum(e.total for e in tail) / max(1, len(tail))


class Balance:
    """Cart on a rail with noise; 24 observed quantities."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.state, self.t = self.rng.normal(0, 0.05, 24), 0
        return self.state.astype(np.float32)

    def step(self, action):
        self.t += 1
        self.state[1] += 0.1 * (action - 0.5) - 0.05 * self.state[0]
        self.state[0] += 0.1 * self.state[1]
        self.state[2:] = 0.9 * self.state[2:] + self.rng.normal(0, 0.05, 22)
        return self.state.astype(np.float32), 1.0 - abs(float(self.state[0])), abs(self.state[0]) > 2 or self.t >= 200


policy = nn.Sequential(nn.Linear(24, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 2))
optimizer = torch.optim.Adam(policy.parameters(), lr=5e-4)
env, episode, warmup = Balance(3), Episode(0), 4000
obs = env.reset()
for step in range(1, 20001):
    with torch.no_grad():
        action = int(torch.distributions.Categorical(logits=policy(torch.from_numpy(obs))).sample())
    next_obs, reward, done = env.step(action)
    if step > warmup:
        episode.record(obs, action, reward)
    obs = next_obs
    if done:
        if episode.transitions:
            x = torch.tensor([e["obs"] for e in episode.transitions])
            a = torch.tensor([e["action"] for e in episode.transitions])
            gain = torch.tensor([e["reward"] for e in episode.transitions]).flip(0).cumsum(0).flip(0)
            for _ in range(45):
                loss = (nn.functional.cross_entropy(policy(x), a, reduction="none") * (gain - gain.mean())).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            episode.close()
        episode, obs = Episode(step), env.reset()
    if step % 2500 == 0:
        print(f"{step} mean return {Episode.mean_return():.1f}")
print(f"{step} steps")
