import random
import weakref

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(26)


class GradientStats:
    """Running norm of the gradients of one model."""

    def __init__(self, model):
        self.model = model
        self.norms = []

    def update(self):
        squares = [p.grad.pow(2).sum() for p in self.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(squares).sum().sqrt()))

    def summary(self):
        return sum(self.norms[-20:]) / min(20, len(self.norms))


STATS = weakref.WeakKeyDictionary()


def stats_for(model):
    if model not in STATS:
        STATS[model] = GradientStats(model)
    return STATS[model]


def build(width, dropout):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def suggest(rng):
    return {"width": rng.choice((448, 512, 576)), "dropout": rng.uniform(0, 0.4), "lr": 10 ** rng.uniform(-4, -2)}


def run_trial(config, data, steps=55):
    x, y = data
    model = build(config["width"], config["dropout"])
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        loss = (model(x[rows]).squeeze(1) - y[rows]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        stats_for(model).update()
        optimizer.step()
    optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        error = (model(x[:500]).squeeze(1) - y[:500]).pow(2).mean().item()
    return error, stats_for(model).summary()


rng = random.Random(4)
inputs = torch.randn(4000, 64)
data = (inputs, torch.sin(inputs[:, 0] * 2) + inputs[:, 1] * inputs[:, 2])
best, steps = None, 0
for trial in range(48):
    config = suggest(rng)
    error, norm = run_trial(config, data)
    steps += 55
    if best is None or error < best[0]:
        best = (error, config)
    print(f"trial {trial} error {error:.4f} gradient norm {norm:.3f}")
print(f"best {best[0]:.4f} width {best[1]['width']} after {steps} steps")
