"""The last layer learns first; the others join as groups of parameters."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model[4].parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    if step in {10, 25}:
        optimizer.add_param_group({"params": list(model[0 if step == 10 else 1].parameters()), "lr": 5e-3})
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
