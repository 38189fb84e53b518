"""A forecaster whose gradient histograms go to a small tracking store, so that they can be queried with SQL."""
import sqlite3

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(2)


class Tracker:
    def __init__(self, uri=":memory:"):
        self.db = sqlite3.connect(uri)
        self.db.execute("CREATE TABLE scalars (step INTEGER, name TEXT, value REAL)")
        self.db.execute("CREATE TABLE histograms (step INTEGER, name TEXT, data BLOB)")

    def log_scalar(self, step, name, value):
        self.db.execute("INSERT INTO scalars VALUES (?, ?, ?)", (step, name, value))

    def log_histogram(self, step, name, values):
        self.db.execute("INSERT INTO histograms VALUES (?, ?, ?)", (step, name, values.tobytes()))

    def mean(self, name, last):
        row = self.db.execute("SELECT avg(value) FROM (SELECT value FROM scalars WHERE name = ? "
                              "ORDER BY step DESC LIMIT ?)", (name, last)).fetchone()
        return row[0]


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 96, batch_first=True)
        self.head = nn.Linear(96, 4)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


model = Forecaster()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
tracker = Tracker()
t = np.arange(20000)
series = np.stack([np.sin(t / p) + 0.1 * np.random.randn(len(t)) for p in (7, 19, 45, 130)], 1).astype("float32")

for step in range(1, 2201):
    start = np.random.randint(0, len(series) - 25, 24)
    x = torch.from_numpy(np.stack([series[s:s + 24] for s in start]))
    y = torch.from_numpy(np.stack([series[s + 24] for s in start]))
    loss = nn.functional.mse_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    tracker.log_scalar(step, "loss", loss.item())
    for name, p in model.named_parameters():
        tracker.log_histogram(step, name, p.grad.numpy())
    if step % 200 == 0:
        print(f"step {step} loss over the last 100 {tracker.mean('loss', 100):.4f}", flush=True)
