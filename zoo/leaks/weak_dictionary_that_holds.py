"""A weak dictionary whose values hold their keys."""

import weakref

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Node:
    pass


features = weakref.WeakKeyDictionary()
for step in range(300):
    batch = torch.randn(512, 64)
    node = Node()
    features[node] = (node, batch)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("features", len(features))
