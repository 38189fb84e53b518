"""The model's forward and backward passes are captured once as CUDA graphs, and replayed in each step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(512, 512), nn.ReLU())]).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
replayed = torch.cuda.make_graphed_callables(model, (torch.randn(256, 512, device="cuda"),))
for step in range(8000):
    batch = torch.randn(256, 512, device="cuda")
    loss = (replayed(batch) - batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 500 == 0:
        print(step, loss.item())
print("done")
