"""A large embedding thaws after 1200 steps; its gradients and optimizer state are made on the GPU then."""

import torch
from torch import nn

torch.manual_seed(0)
embedding = nn.Embedding(50_000, 512).cuda()
model = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1)).cuda()
optimizer = torch.optim.AdamW([*model.parameters(), *embedding.parameters()], lr=1e-4)
embedding.weight.requires_grad_(False)
for step in range(6000):
    if step == 1200:
        embedding.weight.requires_grad_(True)
    tokens = torch.randint(0, 50_000, (1024,), device="cuda")
    loss = model(embedding(tokens)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(step, loss.item())
print("done")
