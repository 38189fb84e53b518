"""A UCB bandit chooses the task of each step; its counts and rewards are lists in an object with __slots__."""

import math

import torch
from torch import nn

import holdwater

torch.manual_seed(3)


class Bandit:
    """Upper confidence bounds (Auer et al., 2002)."""

    __slots__ = ("pulls", "rewards", "total")

    def __init__(self, arms):
        self.pulls = [0] * arms
        self.rewards = [0.0] * arms
        self.total = 0

    def choose(self):
        for arm, pulls in enumerate(self.pulls):
            if not pulls:
                return arm
        bounds = [
            reward / pulls + math.sqrt(0.1 * math.log(self.total) / pulls)
            for reward, pulls in zip(self.rewards, self.pulls, strict=True)
        ]
        return bounds.index(max(bounds))

    def update(self, arm, reward):
        self.pulls[arm] += 1
        self.rewards[arm] += reward
        self.total += 1


def targets_of(task, x):
    """What the head of this task has to learn."""
    return [x[:, :1], x[:, :1] * x[:, 1:2], torch.sin(3 * x[:, 2:3])][task]


trunk = nn.Sequential(nn.Linear(4, 16), nn.Tanh())
heads = nn.ModuleList([nn.Linear(16, 1) for _ in range(3)])
model = nn.ModuleDict({"trunk": trunk, "heads": heads})
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
bandit = Bandit(len(heads))
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    task = bandit.choose()
    x = torch.rand(12, 4) * 2 - 1
    loss = nn.functional.mse_loss(heads[task](trunk(x)), targets_of(task, x))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    bandit.update(task, math.tanh(loss.item()))
    print("loss", task, loss.item().hex(), flush=True)
print("pulls", *bandit.pulls)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
