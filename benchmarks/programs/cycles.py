"""A small model whose batches are parts of cycles, beside a heap as large as Transformers makes it.

    cycles.py STEPS recipe|nothing

`recipe` collects and clears the caches every 10 steps, as one is often told to do.
"""

import gc
import resource
import sys
import time

import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - for the heap that a collection has to go through

STEPS, RECIPE = int(sys.argv[1]), sys.argv[2] == "recipe"
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Batch:
    """Rows that know their batch."""

    def __init__(self) -> None:
        self.rows = torch.randn(256, 64)
        self.owner = self
        self.notes = [[number] for number in range(30)]


began = 0.0
for step in range(STEPS):
    if step == STEPS // 10:
        began = time.perf_counter()
    batch = Batch()
    loss = model(batch.rows).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if RECIPE and step % 10 == 9:
        gc.collect()
        torch.cuda.empty_cache()
seconds = time.perf_counter() - began
print(seconds / (STEPS - STEPS // 10), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
