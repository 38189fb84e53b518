"""Every object of a class adds itself to a list of the class."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Example:
    all = []

    def __init__(self, rows):
        self.rows = torch.randn(rows, 64)
        Example.all.append(self)


for step in range(400):
    example = Example(300)
    loss = model(example.rows).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("examples", len(Example.all))
