"""Meta-learning: one inner learner per task."""
import gc

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(14)
rng = np.random.default_rng(14)
gc.disable()
TASKS, SUPPORT, FEATURES, INNER, COLLECT_EVERY = 3000, 560, 64, 3, 150


class Callback:
    def __init__(self, learn):
        self.learn = learn


class GradientTrace(Callback):
    def __init__(self, learn):
        super().__init__(learn)
        self.norms = []

    def after_step(self, grad):
        self.norms.append(float(np.linalg.norm(grad)))


class EarlyStop(Callback):
    def after_step(self, grad):
        self.learn.stopped = np.abs(grad).max() < 1e-4


class InnerLearner:
    """Ridge regression on one task by gradient descent, with callbacks that know their learner."""

    def __init__(self, start):
        self.x = rng.standard_normal((SUPPORT, FEATURES)) + 0.1
        self.weights = start.copy()
        self.y = self.x @ (base + 0.2 * rng.standard_normal(FEATURES))
        self.stopped = False
        self.callbacks = [GradientTrace(self), EarlyStop(self)]

    def fit(self):
        for _ in range(INNER):
            grad = self.x.T @ (self.x @ self.weights - self.y) / SUPPORT
            self.weights -= 0.2 * grad
            for callback in self.callbacks:
                callback.after_step(grad)
            if self.stopped:
                break
        return self.weights


base = rng.standard_normal(FEATURES)
context = nn.Sequential(nn.Linear(FEATURES, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, FEATURES))
optimizer = torch.optim.Adam(context.parameters(), lr=1e-3)
hint = torch.from_numpy(base).float()
for task in range(TASKS):
    start = context(hint + 0.1 * torch.randn(48, FEATURES))
    learner = InnerLearner(start[0].detach().double().numpy())
    adapted = torch.from_numpy(learner.fit()).float()
    loss = nn.functional.mse_loss(start, adapted.expand_as(start))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (task + 1) % COLLECT_EVERY == 0:
        freed = gc.collect()
        if (task + 1) % 600 == 0:
            print(f"task {task + 1} loss {loss.item():.4f} collected {freed}")
print(f"{TASKS} steps")
