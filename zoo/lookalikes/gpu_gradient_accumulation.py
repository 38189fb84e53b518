"""Gradients are accumulated over eight small batches for each step, and the losses are summed for a line of the log."""

import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for step in range(250):
    optimizer.zero_grad()
    losses = []
    for _ in range(8):
        batch = torch.randn(8, 128, 512, device="cuda")
        loss = (model(batch) - batch).pow(2).mean() / 8
        loss.backward()
        losses.append(loss.detach())
    optimizer.step()
    if step % 10 == 0:
        print(step, torch.stack(losses).sum().item())
print("done")
