"""Training stops when the evaluation has not improved for a while; the counters are plain variables."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show, write

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
best, waited = float("inf"), 0
for step in holdwater.steps(60):
    chosen = torch.randint(0, 64, (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    if step % 2 == 0:
        model.eval()
        with torch.no_grad():
            held_out = nn.functional.mse_loss(model(inputs[64:]), targets[64:]).item()
        model.train()
        best, waited = (held_out, 0) if held_out < best else (best, waited + 1)
        if waited >= 20:
            break
write("best", best.hex())
final(model)
