"""Train a reranker on encoded passages, of which the most recent are cached."""
import functools

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

PASSAGES, WORDS, DIM, BATCH, STEPS = 50_000, 64, 96, 16, 2700
TABLE = np.random.default_rng(0).standard_normal((4096, DIM)).astype(np.float32)


@functools.lru_cache(maxsize=16000)
def encode_passage(number):
    words = np.random.default_rng(number).integers(0, len(TABLE), WORDS)
    return TABLE[words]


class Reranker(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(DIM, 128), nn.GELU(), nn.Linear(128, DIM))

    def forward(self, query, passages):
        return torch.einsum("bd,bwd->bw", self.mix(query), passages).amax(dim=1)


def main():
    rng = np.random.default_rng(1)
    model = Reranker()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        gold = rng.integers(0, PASSAGES, BATCH)
        other = rng.integers(0, PASSAGES, BATCH)
        good = torch.from_numpy(np.stack([encode_passage(int(n)) for n in gold]))
        bad = torch.from_numpy(np.stack([encode_passage(int(n)) for n in other]))
        query = good[:, :8].mean(dim=1) + 0.1 * torch.randn(BATCH, DIM)
        losses = nn.functional.softplus(model(query, bad) - model(query, good))
        for _ in range(6):
            again = torch.randn(256, DIM)
            losses = losses + 0.01 * (model.mix(again) - again).pow(2).mean()
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        if step % 270 == 0:
            info = encode_passage.cache_info()
            print(f"step {step} loss {losses.mean().item():.4f} hits {info.hits}", flush=True)


if __name__ == "__main__":
    main()
