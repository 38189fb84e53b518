"""Deep-kernel regression with an acquisition search on fantasised observations."""
import functools

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(21)
DIM, POINTS, CANDIDATES, STEPS, SEARCH_EVERY = 6, 180, 16, 3000, 6


def clear_cache(strategy, *_):
    strategy.cached_mean = None


class PredictionStrategy:
    """Posterior mean weights for one set of (possibly fantasised) observations."""

    def __init__(self, features, targets, noise):
        self.features, self.targets = features, targets
        self.noise = noise * torch.eye(len(features))
        self.cached_mean = None

    @property
    def mean_cache(self):
        if self.cached_mean is None:
            self.cached_mean = torch.linalg.solve(self.features @ self.features.t() + self.noise, self.targets)
            self.cached_mean.grad_fn.register_hook(functools.partial(clear_cache, self))
        return self.cached_mean

    def predict(self, features):
        return features @ self.features.t() @ self.mean_cache


embed = nn.Sequential(nn.Linear(DIM, 48), nn.Tanh(), nn.Linear(48, 24))
head = nn.Sequential(nn.Linear(24, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 1))
optimizer = torch.optim.Adam([*embed.parameters(), *head.parameters()], lr=3e-3)
inputs = torch.rand(POINTS, DIM)
outputs = torch.sin(inputs.sum(1, keepdim=True) * 3) + 0.05 * torch.randn(POINTS, 1)


def search(candidates):
    """A few ascent moves of the candidates on the posterior mean."""
    fantasy = outputs + 0.1 * torch.randn_like(outputs)
    strategy = PredictionStrategy(embed(inputs), fantasy, 0.05)
    for _ in range(2):
        candidates = candidates.detach().requires_grad_()
        value = strategy.predict(embed(candidates)).sum()
        slope, = torch.autograd.grad(value, candidates, retain_graph=True)
        candidates = (candidates + 0.05 * slope.sign()).clamp(0, 1)
    return candidates, value.item()


for step in range(1, STEPS + 1):
    pick = torch.randint(0, POINTS, (192,))
    loss = nn.functional.mse_loss(head(embed(inputs[pick])), outputs[pick])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % SEARCH_EVERY == 0:
        best, value = search(torch.rand(CANDIDATES, DIM))
        inputs[step % POINTS] = best[0].detach()
        outputs[step % POINTS] = torch.sin(best[0].detach().sum() * 3)
    if step % 600 == 0:
        print(f"step {step} loss {loss.item():.4f} acquisition {value:.3f}")
print(f"{STEPS} steps")
