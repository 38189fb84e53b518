"""The moving average of the weights is computed without gradients."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
average = [parameter.detach().clone() for parameter in model.parameters()]
for step in range(900):
    batch = torch.randn(32, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        average = [0.99 * old + 0.01 * new for old, new in zip(average, model.parameters())]
print("averaged", len(average))
