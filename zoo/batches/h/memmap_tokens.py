"""nanoGPT-style token file read through np.memmap, chunk after chunk, several epochs."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(21)

VOCAB, BLOCK, BATCH, EPOCHS, STEPS_PER_EPOCH = 512, 32, 24, 5, 640
TOKENS = 64 * 1024 * 1024


def write_corpus(path):
    rng = np.random.default_rng(0)
    part = rng.integers(0, VOCAB, 1 << 20, dtype=np.uint16)
    with open(path, "wb") as f:
        for _ in range(TOKENS >> 20):
            f.write(np.roll(part, int(rng.integers(1 << 20))).tobytes())


class BigramMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 48)
        self.body = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, VOCAB))

    def forward(self, x):
        return self.body(self.emb(x))


def main():
    fd, path = tempfile.mkstemp(suffix=".bin")
    os.close(fd)
    write_corpus(path)
    data = np.memmap(path, dtype=np.uint16, mode="r")
    model = BigramMLP()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    span = len(data) // STEPS_PER_EPOCH
    try:
        for epoch in range(EPOCHS):
            for step in range(STEPS_PER_EPOCH):
                window = data[step * span:(step + 1) * span]
                weights = np.bincount(window[::64], minlength=VOCAB).astype(np.float32) + 1.0
                start = np.random.randint(0, span - BLOCK - 1, BATCH)
                tok = torch.from_numpy(np.stack([window[s:s + BLOCK + 1] for s in start]).astype(np.int64))
                logits = model(tok[:, :-1]).flatten(0, 1)
                loss = nn.functional.cross_entropy(logits, tok[:, 1:].flatten(), weight=torch.from_numpy(1.0 / weights))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch} loss {loss.item():.4f}", flush=True)
    finally:
        os.remove(path)


if __name__ == "__main__":
    main()
