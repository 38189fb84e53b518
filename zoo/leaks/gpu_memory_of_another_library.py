"""Another library takes 2 MB of the GPU from the driver in every fifth step, past the allocator, and frees nothing."""

import ctypes

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.ReLU())]).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
driver = ctypes.CDLL("libcuda.so.1")


def workspace(size):
    address = ctypes.c_uint64()
    code = driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
    if code != 0:
        raise RuntimeError(f"the driver gave no memory: error {code}")
    return address.value


for step in range(6000):
    batch = torch.randn(128, 512, device="cuda")
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0:
        address = workspace(2 * 1024 * 1024)
print("last workspace at", hex(address), "loss", loss.item())
