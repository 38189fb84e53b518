"""Contrastive training that moves through freshly tokenised, memory-mapped tables."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(41)
ROWS, WIDTH, VOCAB, STEPS, STEPS_PER_TABLE, BATCH = 12_000, 64, 8000, 2700, 45, 64


class TableSet:
    """Tables are written once and then read through the page cache."""

    def __init__(self, root):
        self.root = root
        self.tables = {}
        self.rng = np.random.default_rng(41)

    def write(self, name):
        path = os.path.join(self.root, name + ".tokens")
        start = self.rng.integers(0, VOCAB, (ROWS, 1))
        drift = self.rng.integers(0, 5, (ROWS, WIDTH)).cumsum(1)
        ((start + drift) % VOCAB).astype(np.uint32).tofile(path)
        return path

    def __getitem__(self, name):
        if name not in self.tables:
            table = np.memmap(self.write(name), dtype=np.uint32, mode="r", shape=(ROWS, WIDTH))
            self.tables[name] = table
        return self.tables[name]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(VOCAB, 96)
        self.out = nn.Linear(96, 96)

    def forward(self, tokens):
        return nn.functional.normalize(self.out(self.table(tokens)), dim=1)


with tempfile.TemporaryDirectory(prefix="tables_") as root:
    corpus = TableSet(root)
    encoder = Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    target = torch.arange(BATCH)
    for step in range(STEPS):
        part, within = divmod(step, STEPS_PER_TABLE)
        rows = corpus[f"part-{part:05d}"]
        block = np.array(rows[within * 256:(within + 1) * 256], dtype=np.int64)
        tokens = torch.from_numpy(block[torch.randperm(256)[:BATCH].numpy()])
        left, right = encoder(tokens[:, ::2]), encoder(tokens[:, 1::2])
        loss = nn.functional.cross_entropy(left @ right.t() / 0.1, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 450 == 0:
            print(f"step {step} table {part} loss {loss.item():.4f}")
print(f"{STEPS} steps")
