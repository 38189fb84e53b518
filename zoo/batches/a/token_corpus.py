import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)
TOKENS, VOCAB, CONTEXT, BATCH = 48_000_000, 512, 32, 64
STEPS = 3000


def prepare(path):
    rng = np.random.default_rng(0)
    with open(path, "wb") as out:
        for _ in range(24):
            rng.integers(0, VOCAB, size=TOKENS // 24, dtype=np.uint16).tofile(out)


class SequentialReader:
    """Walks through the corpus in order, begins again at its end."""

    def __init__(self, path, stride):
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")
        self.stride, self.offset = stride, 0

    def next(self):
        if self.offset + self.stride > len(self.tokens):
            self.offset = 0
        chunk = self.tokens[self.offset:self.offset + self.stride]
        self.offset += self.stride
        rows = chunk[:len(chunk) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
        pick = np.random.randint(0, len(rows), size=BATCH)
        keep = np.count_nonzero(rows[:, 0] == 0)
        return torch.from_numpy(rows[pick].astype(np.int64)), keep


def main():
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = os.path.join(directory, "tokens.bin")
        prepare(path)
        reader = SequentialReader(path, stride=TOKENS // 1800)
        embed, rnn, out = nn.Embedding(VOCAB, 48), nn.GRU(48, 48, batch_first=True), nn.Linear(48, VOCAB)
        parameters = [*embed.parameters(), *rnn.parameters(), *out.parameters()]
        print("parameters", sum(p.numel() for p in parameters), flush=True)
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        begins = 0
        for step in range(1, STEPS + 1):
            rows, keep = reader.next()
            begins += keep
            hidden, _ = rnn(embed(rows[:, 1::4]))
            loss = nn.functional.cross_entropy(out(hidden[:, -1]), rows[:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 300 == 0:
                print(step, f"{loss.item():.4f}", begins, flush=True)
        print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
