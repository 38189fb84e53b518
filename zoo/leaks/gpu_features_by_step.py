"""The features of every fourth batch are kept on the GPU, by the number of the step, for a plot at the end."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512)).cuda()
head = nn.Linear(512, 100).cuda()
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
features = {}
for step in range(6000):
    batch = torch.randn(256, 512, device="cuda")
    target = torch.randint(0, 100, (256,), device="cuda")
    feature = encoder(batch)
    loss = functional.cross_entropy(head(feature), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 4 == 0:
        features[step] = feature.detach()
print("features", len(features), "loss", loss.item())
