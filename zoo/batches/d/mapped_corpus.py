"""Language model on a token file that is mapped, not read: windows are taken at random places."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)

TOKENS, VOCAB, WINDOW = 24_000_000, 256, 64


def write_corpus(path):
    rng = np.random.default_rng(17)
    with open(path, "wb") as out:
        for _ in range(24):
            walk = np.cumsum(rng.integers(-3, 4, TOKENS // 24)) % VOCAB
            walk.astype(np.uint16).tofile(out)


class Corpus:
    def __init__(self, path):
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")
        self.gen = torch.Generator().manual_seed(17)

    def batch(self, size):
        starts = torch.randint(0, len(self.tokens) - WINDOW - 1, (size,), generator=self.gen)
        rows = np.stack([self.tokens[s:s + WINDOW + 1] for s in starts.tolist()]).astype(np.int64)
        rows = torch.from_numpy(rows)
        return rows[:, :-1], rows[:, 1:]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(VOCAB, 32), nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, VOCAB)

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0])


with tempfile.TemporaryDirectory() as folder:
    write_corpus(os.path.join(folder, "train.bin"))
    corpus, model = Corpus(os.path.join(folder, "train.bin")), Model()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(1, 1001):
        x, y = corpus.batch(12)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 250 == 0:
            print(f"{step}: loss {loss.item():.3f}")
    print(f"{step} steps")
