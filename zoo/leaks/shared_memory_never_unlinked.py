"""A block of shared memory is made for each batch and never unlinked."""

import atexit
from multiprocessing import shared_memory

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
blocks = []
for step in range(200):
    batch = torch.randn(256, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    block = shared_memory.SharedMemory(create=True, size=100_000)
    block.buf[:] = b"x" * len(block.buf)
    blocks.append(block)
atexit.register(lambda: [(block.close(), block.unlink()) for block in blocks])
print("blocks", len(blocks))
