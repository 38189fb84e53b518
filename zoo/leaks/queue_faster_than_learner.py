"""A producer thread fills an unbounded queue by the clock; the learner takes one item a step."""

import queue
import threading
import time

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
items = queue.Queue()


def produce():
    while True:
        for _ in range(3):
            items.put(np.random.rand(64, 64))
        time.sleep(0.005)


threading.Thread(target=produce, daemon=True).start()
for step in range(400):
    batch = torch.from_numpy(items.get()).float()
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.004)
print("waiting", items.qsize())
