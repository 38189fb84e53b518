import os
import tempfile

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(2)
VOCAB, ROWS, WIDTH = 128, 60_000, 512


def write_corpus(path, seed=0):
    rng = np.random.default_rng(seed)
    with open(path, "wb") as out:
        for _ in range(60):
            block = rng.integers(0, VOCAB, (ROWS // 60, WIDTH), dtype=np.int16)
            block[:, 1::2] = (block[:, ::2] * 3 + 1) % VOCAB
            out.write(block.tobytes())


class PackedCorpus:
    def __init__(self, path):
        self.rows = np.memmap(path, dtype=np.int16, mode="r", shape=(ROWS, WIDTH))

    def read(self, start, count):
        index = np.arange(start, start + count) % ROWS
        return torch.from_numpy(self.rows[index].astype(np.int64))


class PairModel(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim)
        self.body = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, VOCAB))

    def forward(self, tokens):
        return self.body(self.embed(tokens))


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "packed.bin")
    write_corpus(path)
    corpus, model = PackedCorpus(path), PairModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch, seen, step = 60, 0, 0
    while seen < ROWS * 5 // 3:
        tokens = corpus.read(seen, batch)[:, :160]
        logits = model(tokens[:, :-1:2])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1::2].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += batch
        step += 1
        if step % 200 == 0:
            print(f"step {step} rows {seen} loss {loss.item():.3f}")
    print(f"ended at {step} steps")
