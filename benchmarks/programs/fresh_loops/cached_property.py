"""The data set draws its prototypes when they are first asked for, and keeps them."""

import functools

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


class Prototypes:
    """Points to which inputs are drawn."""

    @functools.cached_property
    def points(self):
        """Drawn once."""
        return torch.randn(4, 8)

    def pull(self, x):
        """Move inputs towards the nearest point."""
        nearest = torch.cdist(x, self.points).argmin(1)
        return 0.8 * x + 0.2 * self.points[nearest]


prototypes = Prototypes()
for step in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    x = inputs[chosen]
    if step >= 3:
        x = prototypes.pull(x)
    loss = nn.functional.mse_loss(model(x), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
