"""Tree-structured encoder; the collector is run by hand at a fixed interval."""
import gc

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(15)
gc.disable()

STEPS = 2800
GC_EVERY = 560


class Node:
    def __init__(self, parent, feature):
        self.parent = parent
        self.children = []
        self.feature = feature
        if parent is not None:
            parent.children.append(self)


def grow(depth, parent=None):
    node = Node(parent, torch.randn(96, 48))
    if depth:
        for _ in range(2):
            grow(depth - 1, node)
    return node


class TreeEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.leaf = nn.Linear(48, 96)
        self.join = nn.Linear(96, 96)
        self.out = nn.Linear(96, 1)

    def encode(self, node):
        h = torch.tanh(self.leaf(node.feature))
        for child in node.children:
            h = h + torch.tanh(self.join(self.encode(child)))
        return h

    def forward(self, root):
        return self.out(self.encode(root)).squeeze(1)


model = TreeEncoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, STEPS + 1):
    tree = grow(3)
    target = tree.feature.mean(1) + tree.children[0].feature.mean(1)
    loss = F.mse_loss(model(tree), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % GC_EVERY == 0:
        gc.collect()
        print(f"step {step} loss {loss.item():.4f}", flush=True)
