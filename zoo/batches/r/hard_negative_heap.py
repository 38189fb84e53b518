"""Train an embedding model with a priority heap of hard negatives.

When a sample's hardness changes, its old entry is marked as stale and a new one
is pushed; stale entries are skipped when they come up.
"""
import heapq
import itertools

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

ITEMS, DIM, BATCH, HARD, STEPS = 1500, 192, 64, 16, 3200


class HardNegatives:
    def __init__(self):
        self.heap = []
        self.current = {}
        self.ticket = itertools.count()

    def update(self, item, hardness, features):
        entry = [-hardness, next(self.ticket), item, features.copy()]
        self.current[item] = entry[1]
        heapq.heappush(self.heap, entry)

    def hardest(self, count):
        taken = []
        while self.heap and len(taken) < count:
            entry = heapq.heappop(self.heap)
            if self.current.get(entry[2]) == entry[1]:
                taken.append(entry)
        for entry in taken:
            heapq.heappush(self.heap, entry)  # again
        return np.stack([entry[3] for entry in taken])


def main():
    rng = np.random.default_rng(0)
    items = rng.standard_normal((ITEMS, DIM)).astype(np.float32)
    model = nn.Sequential(nn.Linear(DIM, 384), nn.GELU(), nn.Linear(384, 384), nn.GELU(), nn.Linear(384, DIM))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    negatives = HardNegatives()
    for step in range(1, STEPS + 1):
        pick = rng.integers(0, ITEMS, BATCH)
        x = torch.from_numpy(items[pick])
        anchor = nn.functional.normalize(model(x + 0.2 * torch.randn_like(x)), dim=1)
        positive = nn.functional.normalize(model(x), dim=1)
        logits = anchor @ positive.T / 0.1
        if step > 20:
            hard = torch.from_numpy(negatives.hardest(HARD))
            logits = torch.cat([logits, anchor @ nn.functional.normalize(model(hard), dim=1).T / 0.1], dim=1)
        losses = nn.functional.cross_entropy(logits, torch.arange(BATCH), reduction="none")
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        for item, hardness in zip(pick.tolist(), losses.tolist()):
            negatives.update(item, hardness, items[item])
        if step % 320 == 0:
            print(f"step {step} loss {losses.mean().item():.4f}", flush=True)


if __name__ == "__main__":
    main()
