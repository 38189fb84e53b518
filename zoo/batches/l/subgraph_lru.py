"""GraphSAGE with sampled subgraphs; the sampled neighbourhoods of recent seed blocks are kept."""
import functools

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
rng = np.random.default_rng(18)

NODES, BLOCK = 40_000, 100
neighbours = torch.from_numpy(rng.integers(0, NODES, (NODES, 12)))
features = torch.randn(NODES, 32)
labels = (features[neighbours].mean(1)[:, 0] > 0).long()


@functools.lru_cache(maxsize=170)
def neighbourhood(block):
    seeds = torch.arange(block * BLOCK, (block + 1) * BLOCK)
    one = neighbours[seeds][:, torch.randperm(12)[:10]]
    two = neighbours[one][..., torch.randperm(12)[:6]]
    return seeds, features[one], features[two]


class Sage(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Linear(64, 160)
        self.high = nn.Linear(32 + 160, 2)

    def forward(self, seeds, one, two):
        h = torch.relu(self.low(torch.cat([one, two.mean(2)], -1)))
        return self.high(torch.cat([features[seeds], h.mean(1)], -1))


model = Sage()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
step = 0
for epoch in range(12):
    order = torch.randperm(NODES // BLOCK).tolist()
    for block in order:
        seeds, one, two = neighbourhood(block)
        loss = nn.functional.cross_entropy(model(seeds, one, two), labels[seeds])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 480 == 0:
            info = neighbourhood.cache_info()
            print(f"epoch {epoch} step {step} loss {loss.item():.3f} hits {info.hits} misses {info.misses}", flush=True)
