"""Bag-of-tokens classifier; records are plain Python objects shared with forked workers."""
import random

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)


class Records(Dataset):
    def __init__(self, n, vocab=5000, seed=0):
        rng = random.Random(seed)
        self.records = []
        for i in range(n):
            tokens = [str(rng.randrange(vocab)) for _ in range(16)]
            self.records.append({"id": f"doc-{i}", "tokens": tokens, "label": int(tokens[0]) % 5})

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        r = self.records[i]
        return torch.tensor([int(t) for t in r["tokens"]]), r["label"]


def main():
    torch.manual_seed(0)
    loader = DataLoader(Records(60000), batch_size=128, shuffle=True, num_workers=2, persistent_workers=True,
                        drop_last=True)
    embed = nn.EmbeddingBag(5000, 64)
    head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    opt = torch.optim.Adam([*embed.parameters(), *head.parameters()], lr=2e-3)
    step = 0
    for epoch in range(7):
        for tokens, label in loader:
            loss = nn.functional.cross_entropy(head(embed(tokens)), label)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        print(f"epoch {epoch} step {step} loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
