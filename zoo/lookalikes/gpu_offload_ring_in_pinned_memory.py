"""Hidden states are offloaded into a ring of 128 pinned buffers, which are made as they are needed and used again."""

import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(512, 1024), nn.ReLU()).cuda()
head = nn.Linear(1024, 512).cuda()
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)


class Ring:
    def __init__(self, slots):
        self.slots = [None] * slots
        self.next = 0

    def put(self, hidden):
        if self.slots[self.next] is None:
            self.slots[self.next] = torch.empty(hidden.shape, pin_memory=True)
        self.slots[self.next].copy_(hidden, non_blocking=True)
        self.next = (self.next + 1) % len(self.slots)


ring = Ring(128)
for step in range(5000):
    batch = torch.randn(512, 512, device="cuda")
    hidden = encoder(batch)
    loss = (head(hidden) - batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 2 == 0:
        ring.put(hidden.detach())
torch.cuda.synchronize()
print("slots", len(ring.slots))
