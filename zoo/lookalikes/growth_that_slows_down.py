"""A table of patterns grows fast at first and ever more slowly, until all are known."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
patterns = {}
generator = torch.Generator().manual_seed(1)
for step in range(600):
    for key in torch.randint(0, 400, (8,), generator=generator).tolist():
        if key not in patterns:
            patterns[key] = torch.randn(100, 256)
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("patterns", len(patterns))
