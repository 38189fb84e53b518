"""Validation losses keep their graphs, and with them all activations, in a list that is never cleared."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for step in range(400):
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 19:
        model.eval()
        for _ in range(4):
            value = model(torch.randn(512, 64)).pow(2).mean()
            losses.append(value)
        model.train()
print("evaluations", len(losses))
