"""A logging handler buffers records for a flush that never comes."""

import logging
import logging.handlers

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
log = logging.getLogger("train")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.handlers.MemoryHandler(capacity=10**9))
for step in range(500):
    batch = torch.randn(64, 64)
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for value in output.detach().squeeze(1)[:32].tolist():
        log.info("step %d: value %f", step, value)
print("done")
