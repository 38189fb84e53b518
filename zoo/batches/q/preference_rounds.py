"""Rounds of sampling answers and fitting a scorer to them; each round trains on the newest answers."""
import time

import datasets
import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import nn

datasets.disable_progress_bars()
torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
VOCAB, LENGTH, PER_ROUND, ROUNDS, STEPS_PER_ROUND = 2000, 128, 1000, 250, 20


def answers():
    tokens = rng.integers(1, VOCAB, (PER_ROUND, LENGTH))
    return Dataset.from_dict({
        "tokens": tokens,
        "reward": (tokens % 7 == 0).mean(1),
    })


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 256)
        self.net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 1))

    def forward(self, x):
        return self.net(self.embed(x).mean(1)).squeeze(-1)


model = Scorer()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
pool = answers()
began, total = time.time(), 0
for round_ in range(ROUNDS):
    pool = concatenate_datasets([pool, answers()])
    newest = len(pool) - PER_ROUND
    for _ in range(STEPS_PER_ROUND):
        rows = pool.with_format("torch")[newest + rng.integers(0, PER_ROUND, 32)]
        loss = nn.functional.mse_loss(model(rows["tokens"]), rows["reward"].float() * 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += 1
    if (round_ + 1) % 25 == 0:
        print(f"round {round_ + 1} loss {loss.item():.4f} {time.time() - began:.1f}s", flush=True)
print("steps", total)
