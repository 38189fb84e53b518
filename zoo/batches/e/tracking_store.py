"""Sequence classifier with run tracking in an in-process SQL store."""
import json
import sqlite3

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(53)
STEPS, BATCH, LENGTH, HISTOGRAMS_FROM, SNAPSHOT_EVERY = 2400, 24, 12, 400, 40


class TrackingStore:
    def __init__(self):
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE metrics (step INTEGER, key TEXT, value REAL)")
        self.db.execute("CREATE TABLE arrays (step INTEGER, key TEXT, meta TEXT, body BLOB)")

    def log_metric(self, step, key, value):
        self.db.execute("INSERT INTO metrics VALUES (?, ?, ?)", (step, key, value))

    def log_arrays(self, step, named):
        rows = ((step, k, json.dumps(list(v.shape)), v.contiguous().numpy().tobytes()) for k, v in named)
        self.db.executemany("INSERT INTO arrays VALUES (?, ?, ?, ?)", rows)
        self.db.commit()

    def mean_loss(self):
        return self.db.execute("SELECT avg(value) FROM metrics WHERE key = 'loss'").fetchone()[0]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(500, 96)
        self.rnn = nn.GRU(96, 128, batch_first=True)
        self.out = nn.Linear(128, 9)

    def forward(self, tokens):
        return self.out(self.rnn(self.embed(tokens))[0])


model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
store = TrackingStore()
for step in range(1, STEPS + 1):
    tokens = torch.randint(0, 500, (BATCH, LENGTH))
    scores = model(tokens)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), (tokens % 9).flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    store.log_metric(step, "loss", loss.item())
    if step >= HISTOGRAMS_FROM and step % SNAPSHOT_EVERY == 0:
        store.log_arrays(step, [(f"param/{n}", p.detach()) for n, p in model.named_parameters()])
        store.log_arrays(step, [(f"grad/{n}", p.grad) for n, p in model.named_parameters()])
    if step % 600 == 0:
        print(f"step {step} loss {loss.item():.4f} mean {store.mean_loss():.4f}")
print(f"{STEPS} steps")
