"""A layer centres by a running mean that is left out of its state."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()


class Centred(nn.Module):
    """Takes off the mean of what it has seen."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.register_buffer("mean", torch.zeros(8), persistent=False)

    def forward(self, x):
        """Propagate."""
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return self.inner(x - self.mean)


model = Centred()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
