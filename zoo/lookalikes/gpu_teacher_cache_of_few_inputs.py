"""A teacher's logits are cached on the GPU by the number of the batch, and there are 400 batches."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096)).cuda()
student = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 4096)).cuda()
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
rows = torch.randn(400, 96, 1024)
cache = {}


def teach(key, batch):
    if key not in cache:
        with torch.no_grad():
            cache[key] = teacher(batch)
    return cache[key]


for step in range(4000):
    key = step % len(rows)
    batch = rows[key].to("cuda")
    target = teach(key, batch).softmax(-1)
    loss = functional.cross_entropy(student(batch), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(step, loss.item())
print("cached", len(cache))
