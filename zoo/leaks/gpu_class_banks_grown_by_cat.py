"""The features of each class are joined to that class's bank on the GPU, which grows by every batch."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
head = nn.Linear(256, 8).cuda()
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
banks = {name: torch.zeros(0, 256, device="cuda") for name in range(8)}
for step in range(3000):
    batch = torch.randn(512, 256, device="cuda")
    target = torch.randint(0, 8, (512,), device="cuda")
    feature = encoder(batch)
    loss = functional.cross_entropy(head(feature), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for name in banks:
        banks[name] = torch.cat([banks[name], feature[target == name].detach()])
print("features", sum(len(bank) for bank in banks.values()))
