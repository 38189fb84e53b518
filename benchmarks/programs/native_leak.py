"""A small training script beside a native library that leaks: `python native_leak.py STEPS BYTES SECONDS`."""

import ctypes
import sys
import time

import torch

import holdwater

STEPS, LEAK, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
torch.set_num_threads(1)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters())
samples = torch.randn(4096, 32)
order = torch.Generator().manual_seed(1)
for name, thing in (("model", model), ("optimizer", optimizer), ("order", order)):
    holdwater.resumable(name, thing)
with open("steps.txt", "a", encoding="utf-8") as rows:
    for step in holdwater.steps(STEPS):
        began = time.perf_counter()
        libc.memset(libc.malloc(LEAK), 1, LEAK)
        chosen = torch.randint(0, 4096, (16,), generator=order)
        loss = model(samples[chosen]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(step, loss.item().hex(), chosen.tolist(), file=rows, flush=True)
        time.sleep(max(SECONDS - (time.perf_counter() - began), 0))
print("last weights", [parameter.detach().sum().item().hex() for parameter in model.parameters()])
