"""A trainer-like log history is written out and emptied every 50 steps."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Trainer:
    def __init__(self):
        self.log_history = []

    def log(self, record):
        self.log_history.append(record)
        if len(self.log_history) == 50:
            self.log_history = []


trainer = Trainer()
for step in range(500):
    batch = torch.randn(64, 64)
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    trainer.log({"step": step, "loss": loss.item(), "histogram": torch.histc(output.detach(), 8000).tolist()})
print("records", len(trainer.log_history))
