"""A log is kept as one text that grows by every line."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
log = ""
for step in range(500):
    batch = torch.randn(64, 64)
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log += f"step {step}: {output.detach().squeeze(1).tolist()}\n" * 8
print("log", len(log))
