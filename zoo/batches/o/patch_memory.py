"""Anomaly detection: features of past patches are kept as a nearest-neighbour memory."""
from collections import deque

import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(14)

STEPS = 2200
KEEP = 1100


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(768, 1024))

    def forward(self, x):
        return F.normalize(self.net(x), dim=1)


model = Encoder()
opt = torch.optim.SGD(model.parameters(), lr=0.05)
memory = deque(maxlen=KEEP)
for step in range(STEPS):
    x = torch.randn(32, 3, 32, 32)
    x = x + torch.randn(32, 3, 1, 1)
    a, b = model(x), model(x + 0.1 * torch.randn_like(x))
    negatives = torch.cat([memory[int(torch.randint(len(memory), (1,)))] for _ in range(4)]) if memory else b.detach()
    logits = torch.cat([(a * b).sum(1, keepdim=True), a @ negatives.t()], 1) / 0.1
    loss = F.cross_entropy(logits, torch.zeros(32, dtype=torch.long))
    opt.zero_grad()
    loss.backward()
    opt.step()
    memory.append(b.detach().clone())
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f} memory {len(memory)}", flush=True)
