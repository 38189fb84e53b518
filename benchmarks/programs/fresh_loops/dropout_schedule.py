"""The dropout is lowered after each step, in the layer itself."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network(dropout=0.5)
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
    model[3].p *= 0.97
final(model)
