"""An experiment tracker is handed live tensors, and keeps all that it is handed."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Tracker:
    def __init__(self):
        self.history = {}

    def log(self, step, **values):
        self.history[step] = values


tracker = Tracker()
for step in range(300):
    batch = torch.randn(512, 64)
    hidden = model[:2](batch)
    loss = model[2:](hidden).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tracker.log(step, loss=loss.item(), hidden=hidden.detach())
print("logged", len(tracker.history))
