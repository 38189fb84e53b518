"""Lookahead around Adam: slow weights and a counter are in a wrapper that passes state_dict on to Adam."""

import torch
from torch import nn

import holdwater

torch.manual_seed(0)
inputs = torch.randn(96, 6)
targets = (inputs[:, :2] * inputs[:, 2:4]).sum(1, keepdim=True)


class Lookahead:
    """Every k steps the weights go half way back to the slow ones (Zhang et al., 2019)."""

    def __init__(self, inner, k=6, alpha=0.5):
        self.inner, self.k, self.alpha = inner, k, alpha
        self.fast_steps = 0
        self.slow = [p.detach().clone() for group in inner.param_groups for p in group["params"]]

    def __getattr__(self, name):
        return getattr(self.inner, name)

    @torch.no_grad()
    def step(self):
        self.inner.step()
        self.fast_steps += 1
        if self.fast_steps % self.k:
            return
        fast = (p for group in self.inner.param_groups for p in group["params"])
        for slow, weight in zip(self.slow, fast, strict=True):
            slow.lerp_(weight, self.alpha)
            weight.copy_(slow)


model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = Lookahead(torch.optim.Adam(model.parameters(), lr=2e-2))
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (16,))
    loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
