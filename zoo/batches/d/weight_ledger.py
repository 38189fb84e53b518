"""Node classification on a fixed graph; statistics of each weight go to an in-memory SQLite ledger."""
import sqlite3

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)

NODES, CLASSES = 600, 5


class Ledger:
    def __init__(self):
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE stats (step INTEGER, name TEXT, histogram BLOB)")

    def record(self, step, model):
        rows = []
        for name, p in model.named_parameters():
            counts, _ = np.histogram(p.detach().numpy(), bins=128, range=(-1, 1))
            rows.append((step, name, counts.tobytes()))
        self.db.executemany("INSERT INTO stats VALUES (?, ?, ?)", rows)

    def recent(self, step, span=50):
        return self.db.execute("SELECT count(*) FROM stats WHERE rowid > ? AND step > ?",
                               (step * 4, step - span)).fetchone()[0]


class Layer(nn.Module):
    def __init__(self, wide_in, wide_out):
        super().__init__()
        self.own, self.near = nn.Linear(wide_in, wide_out), nn.Linear(wide_in, wide_out, bias=False)

    def forward(self, x, adjacency):
        return torch.relu(self.own(x) + self.near(adjacency @ x))


class Network(nn.Module):
    def __init__(self, wide=48):
        super().__init__()
        self.layers = nn.ModuleList([Layer(32, wide), Layer(wide, wide)])
        self.head = nn.Linear(wide, CLASSES)

    def forward(self, x, adjacency):
        for layer in self.layers:
            x = layer(x, adjacency)
        return self.head(x)


label = torch.randint(0, CLASSES, (NODES,))
edges = (torch.rand(NODES, NODES) < torch.where(label[:, None] == label[None], 0.05, 0.01)).float()
adjacency = edges / edges.sum(1, keepdim=True).clamp(min=1)
x = torch.randn(NODES, 32) + 0.3 * nn.functional.one_hot(label, 32)
model, ledger = Network(), Ledger()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 4501):
    keep = torch.rand(NODES) < 0.5
    loss = nn.functional.cross_entropy(model(x, adjacency)[keep], label[keep])
    opt.zero_grad()
    loss.backward()
    opt.step()
    ledger.record(step, model)
    if step % 900 == 0:
        print(f"{step}: {loss.item():.3f}, {ledger.recent(step)} rows")
print(f"{step} steps")
