"""A log file is opened in each step and never closed."""

import os
import tempfile

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
folder = tempfile.mkdtemp()
logs = []
for step in range(300):
    batch = torch.randn(256, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT)
    logs.append(log)
    os.write(log, b"step\n")
print("open files", len(logs))
