"""LBFGS, which calls the loss itself and keeps a history."""

import torch
from torch import Tensor, nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network(dropout=0.0)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=5)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (32,))

    def closure(chosen: Tensor = chosen) -> Tensor:
        """The loss."""
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
        loss.backward()
        return loss

    show(optimizer.step(closure))
final(model)
