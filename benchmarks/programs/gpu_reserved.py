"""A healthy run that has all of a card reserved, as PyTorch's allocator does: a supervisor must leave it alone.

gpu_reserved.py SHARE
"""

import sys

import torch

share = float(sys.argv[1])
free, size = torch.cuda.mem_get_info()
block = torch.empty(int(share * free), dtype=torch.uint8, device="cuda")
del block  # stays reserved
model = torch.nn.Linear(1024, 1024, device="cuda")
optimizer = torch.optim.AdamW(model.parameters())
for step in range(2000):
    loss = model(torch.randn(64 + step % 7, 1024, device="cuda")).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"done, {torch.cuda.memory_reserved() / 1e9:.0f} GB reserved of {size / 1e9:.0f} GB")
