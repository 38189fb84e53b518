"""From the second epoch on the batches of a hard-example buffer are kept for ever."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
hard = []
for step in range(600):
    batch = torch.randn(512, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step >= 200:
        hard.append(batch[:200].clone())
print("hard examples", len(hard))
