"""Losses are scaled, and steps with infinite gradients skipped."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show, write

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=5)
for name, thing in (("model", model), ("optimizer", optimizer), ("scaler", scaler)):
    holdwater.resumable(name, thing)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    show(loss)
final(model)
write("scale", str(scaler.get_scale()))
