"""Train a classifier head on hashed sentence embeddings that are memoised by text."""
import functools
import random

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(3)
STEPS = 3400
DIM = 1024
WORDS = [f"w{i:04d}" for i in range(3000)]
TABLE = np.random.default_rng(0).standard_normal((3000, DIM), dtype=np.float32)


@functools.lru_cache(maxsize=11000)
def embed(sentence):
    rows = [int(word[1:]) for word in sentence.split()]
    pooled = TABLE[rows].mean(0)
    return pooled / np.linalg.norm(pooled)


class Head(nn.Module):
    def __init__(self, classes=20):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(DIM, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, classes))

    def forward(self, x):
        return self.body(x)


def sample_sentences(rng, n=32, fresh=8, recent=None):
    new = [" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) for _ in range(fresh)]
    recent.extend(new)
    del recent[:-4000]
    return new + rng.choices(recent, k=n - fresh)


def main():
    rng = random.Random(0)
    head = Head()
    opt = torch.optim.AdamW(head.parameters(), lr=1e-3)
    recent = []
    for step in range(STEPS):
        texts = sample_sentences(rng, recent=recent)
        x = torch.from_numpy(np.stack([embed(t) for t in texts]))
        y = torch.tensor([int(t[1:5]) % 20 for t in texts])
        loss = nn.functional.cross_entropy(head(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 400 == 0:
            info = embed.cache_info()
            print(f"step {step} loss {loss.item():.4f} hits {info.hits} misses {info.misses}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
