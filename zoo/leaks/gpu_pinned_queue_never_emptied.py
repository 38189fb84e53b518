"""Each step's hidden state is copied into pinned memory and queued for a writer that was never started."""

import queue

import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(512, 1024), nn.ReLU()).cuda()
head = nn.Linear(1024, 512).cuda()
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
waiting = queue.Queue()
for step in range(5000):
    batch = torch.randn(128, 512, device="cuda")
    hidden = encoder(batch)
    loss = (head(hidden) - batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    row = torch.empty(hidden.shape, pin_memory=True)
    row.copy_(hidden.detach(), non_blocking=True)
    waiting.put((step, row))
torch.cuda.synchronize()
print("waiting", waiting.qsize())
