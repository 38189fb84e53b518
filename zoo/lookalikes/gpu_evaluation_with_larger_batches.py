"""Each evaluation takes batches that are sixteen times as large as a step's, and keeps numbers only."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)
).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
scores = []
for step in range(4000):
    batch, target = torch.randn(512, 1024, device="cuda"), torch.randint(0, 1000, (512,), device="cuda")
    loss = functional.cross_entropy(model(batch), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 99:
        model.eval()
        with torch.no_grad():
            for _ in range(4):
                logits = model(torch.randn(8192, 1024, device="cuda"))
                scores.append(logits.softmax(-1).max().item())
        model.train()
        print(step, loss.item(), scores[-1])
