"""A background sampler keeps its last 300 readings."""

import threading
import time
from collections import deque

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
readings = deque(maxlen=300)


def sample():
    while True:
        readings.append(np.random.rand(8000))
        time.sleep(0.003)


threading.Thread(target=sample, daemon=True).start()
for step in range(400):
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.002 if step // 50 % 2 else 0.012)
print("readings", len(readings))
