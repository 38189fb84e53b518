"""Batches decoded by a thread pool; the read-ahead is raised step by step to its maximum."""
from concurrent.futures import ThreadPoolExecutor
import threading
import time
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(13)

MAX_WORKERS, STEPS, RAISE_EVERY = 8, 2200, 160
SCRATCH_FLOATS = 1_500_000  # 6 MB of decode scratch for each thread
local = threading.local()


def scratch():
    if not hasattr(local, "buffer"):
        local.buffer = np.empty(SCRATCH_FLOATS, dtype=np.float32)
        local.buffer.fill(0)
        local.rng = np.random.default_rng(threading.get_ident() % 2**32)
    return local.buffer, local.rng


def decode(shard):
    """Reads a shard (latency imitated), decodes into the scratch and returns samples."""
    buffer, rng = scratch()
    time.sleep(0.004)
    part = buffer[(shard % 100) * 15_000:][:4 * 128]
    part[:] = rng.normal(size=part.size)
    x = part.reshape(4, 128).copy()
    return x, (x[:, :4].sum(1) > 0).astype(np.int64)


model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                      nn.Linear(256, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
with ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="decode") as pool:
    shard = 0
    for step in range(STEPS):
        depth = min(MAX_WORKERS, 1 + step // RAISE_EVERY)
        futures = [pool.submit(decode, shard + i) for i in range(depth)]
        shard += depth
        parts = [f.result() for f in futures]
        x = torch.from_numpy(np.concatenate([p[0] for p in parts]))
        y = torch.from_numpy(np.concatenate([p[1] for p in parts]))
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: depth {depth}, {threading.active_count()} threads, "
                  f"loss {loss.item():.3f}")
print(f"{STEPS} steps")
