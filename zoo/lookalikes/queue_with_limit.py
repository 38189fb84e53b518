"""A producer thread fills a queue that holds 100 items at most."""

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
items = queue.Queue(maxsize=200)


def produce():
    while True:
        for _ in range(3):
            items.put(np.random.rand(64, 640))
        time.sleep(0.005)


threading.Thread(target=produce, daemon=True).start()
for step in range(500):
    batch = torch.from_numpy(items.get()[:, :64]).float()
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.004)
print("waiting", items.qsize())
