"""After a warm-up the script computes in double precision."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    if step == 10:
        torch.set_default_dtype(torch.float64)
    noise = torch.randn(8, 8)
    loss = nn.functional.mse_loss(model(inputs[chosen] + 0.1 * noise.float()), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
