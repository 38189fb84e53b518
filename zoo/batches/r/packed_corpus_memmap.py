"""Language-model training on one packed token file, opened once as a memmap."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, BLOCK, BATCH, STEPS = 256, 128, 48, 5900
TOKENS = 128 * 1024 * 1024


def write_corpus(path):
    rng = np.random.default_rng(0)
    with open(path, "wb") as out:
        for _ in range(48):
            out.write(rng.integers(0, VOCAB, TOKENS // 48, dtype=np.uint16).tobytes())


def get_batch(data, rng):
    starts = rng.integers(0, len(data) - BLOCK - 1, BATCH)
    return torch.from_numpy(np.stack([data[s:s + BLOCK + 1].astype(np.int64) for s in starts]))


def main():
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = os.path.join(folder, "train.bin")
        write_corpus(path)
        data = np.memmap(path, dtype=np.uint16, mode="r")
        model = nn.Sequential(nn.Embedding(VOCAB, 32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, VOCAB))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(1, STEPS + 1):
            tokens = get_batch(data, rng)[:, :33] if step % 4 else get_batch(data, rng)[:, -33:]
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 590 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
