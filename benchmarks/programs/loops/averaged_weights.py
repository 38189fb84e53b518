"""Stochastic weight averaging, with its schedule and its update of the normalisation."""

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
averaged = AveragedModel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
schedule = SWALR(optimizer, swa_lr=5e-3, anneal_epochs=10)
for name, thing in (("model", model), ("averaged", averaged), ("optimizer", optimizer), ("schedule", schedule)):
    holdwater.resumable(name, thing)
for step in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    if step >= 20 and step % 3 == 0:
        averaged.update_parameters(model)
        schedule.step()
update_bn(inputs.split(16), averaged)
final(model, averaged)
