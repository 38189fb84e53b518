"""Tiny character model trained on a binary token file, window after window."""
import os

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1337)
STEPS = 3000
BLOCK, BATCH = 64, 4
TOKENS = 40 * 1024 * 1024
SPAN = 26000


def prepare(path):
    rng = np.random.default_rng(0)
    with open(path, "wb") as out:
        for _ in range(40):
            rng.integers(0, 96, size=TOKENS // 40, dtype=np.uint16).tofile(out)


class CharModel(nn.Module):
    def __init__(self, vocab=96, dim=96):
        super().__init__()
        self.wte = nn.Embedding(vocab, dim)
        self.wpe = nn.Embedding(BLOCK, dim)
        self.attn = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.head = nn.Linear(dim, vocab)
        self.register_buffer("mask", torch.triu(torch.full((BLOCK, BLOCK), float("-inf")), 1))

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        x = x + self.attn(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        return self.head(x + self.mlp(x))


def get_batch(data, step):
    origin = step * SPAN % (len(data) - SPAN)
    starts = origin + torch.randint(SPAN - BLOCK - 1, (BATCH,))
    x = torch.stack([torch.from_numpy(data[i:i + BLOCK].astype(np.int64)) for i in starts])
    y = torch.stack([torch.from_numpy(data[i + 1:i + 1 + BLOCK].astype(np.int64)) for i in starts])
    return x, y


def main():
    path = os.path.join(os.getcwd(), "train.bin")
    prepare(path)
    data = np.memmap(path, dtype=np.uint16, mode="r")
    model = CharModel()
    opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for step in range(STEPS):
        x, y = get_batch(data, step)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 500 == 0:
            print(f"iter {step}: loss {loss.item():.4f}")
    os.remove(path)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
