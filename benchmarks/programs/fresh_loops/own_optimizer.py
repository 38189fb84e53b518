"""An optimizer of the script's own counts its steps in an attribute."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()


class Averaged(torch.optim.Optimizer):
    """Sign descent with a rate that falls with the steps made."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.made = 0

    @torch.no_grad()
    def step(self):
        """Make a step."""
        self.made += 1
        for group in self.param_groups:
            for part in group["params"]:
                part.add_(part.grad.sign(), alpha=-group["lr"] / self.made**0.5)


optimizer = Averaged(model.parameters(), lr=1e-2)
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
