"""A C library hands out a buffer in each step that nobody frees."""

import ctypes

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for step in range(400):
    batch = torch.randn(256, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    buffer = libc.malloc(ctypes.c_size_t(60_000))
    ctypes.memset(buffer, 1, 60_000)
print("done")
