"""Pretraining on a corpus that a worker process encodes on the fly."""
import itertools
import multiprocessing as mp
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(2)

STEPS, DOCS_PER_STEP, WINDOW, VOCAB = 1500, 2, 64, 5000
WORDS = [f"word{i:04d}" for i in range(4000)]
TABLE = {w: 1000 + i for i, w in enumerate(WORDS)}


def documents():
    rng = random.Random(0)
    for n in itertools.count():
        yield n, rng.randrange(3000)


def encode(job):
    n, start = job
    text = " ".join(WORDS[(start + k * 7 + n) % 4000] for k in range(300))
    ids = []
    for word in text.split():
        best = ""
        for a in range(len(word)):
            for b in range(a + 1, len(word) + 1):
                if b - a > len(best) and word[a:b] in TABLE:
                    best = word[a:b]
        ids.append(TABLE[best] if best else 0)
    return ids


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 64)
        self.lstm = nn.LSTM(64, 96, batch_first=True)
        self.head = nn.Linear(96, 1000)

    def forward(self, x):
        y, _ = self.lstm(self.emb(x))
        return self.head(y)


def main():
    pool = mp.get_context("fork").Pool(1)
    encoded = pool.imap(encode, documents(), chunksize=8)
    model = Model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        rows = []
        for ids in itertools.islice(encoded, DOCS_PER_STEP):
            for k in range(0, 4 * WINDOW, WINDOW):
                rows.append(ids[k:k + WINDOW + 1])
        batch = torch.tensor(rows)
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten() % 1000)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f}", flush=True)
    pool.terminate()
    pool.join()
    print(f"finished {STEPS} steps")


if __name__ == "__main__":
    main()
