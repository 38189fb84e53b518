"""Random search over learning rates; intermediate reports go to a relational trial store."""
import json
import sqlite3

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(21)
TRIALS, STEPS_PER_TRIAL = 60, 90


class TrialStore:
    def __init__(self, url=":memory:"):
        self.conn = sqlite3.connect(url)
        self.conn.execute("CREATE TABLE trials (id INTEGER PRIMARY KEY, params TEXT, value REAL)")
        self.conn.execute("CREATE TABLE reports (trial INTEGER, step INTEGER, payload TEXT)")

    def begin(self, params):
        cur = self.conn.execute("INSERT INTO trials (params) VALUES (?)", (json.dumps(params),))
        self.conn.commit()
        return cur.lastrowid

    def report(self, trial, step, values):
        payload = json.dumps(values)
        self.conn.execute("INSERT INTO reports VALUES (?, ?, ?)", (trial, step, payload))
        self.conn.commit()

    def finish(self, trial, value):
        self.conn.execute("UPDATE trials SET value = ? WHERE id = ?", (value, trial))
        self.conn.commit()

    def best(self):
        return self.conn.execute("SELECT id, params, MIN(value) FROM trials").fetchone()


def build(width):
    return nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


def objective(store, gen):
    params = {"lr": 10 ** float(torch.empty(()).uniform_(-3.5, -1.5, generator=gen)), "width": 256}
    trial = store.begin(params)
    model = build(params["width"])
    opt = torch.optim.RMSprop(model.parameters(), lr=params["lr"])
    for step in range(STEPS_PER_TRIAL):
        x = torch.randn(256, 40, generator=gen)
        y = x.view(256, 4, 10).sum(-1)
        residual = (model(x) - y).pow(2)
        loss = residual.mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        store.report(trial, step, {"loss": loss.item(), "residuals": residual[:96].detach().flatten().tolist()})
    store.finish(trial, loss.item())


def main():
    gen = torch.Generator().manual_seed(3)
    store = TrialStore()
    for number in range(TRIALS):
        objective(store, gen)
        if number % 10 == 9:
            print("best so far", store.best())
    print(f"{TRIALS * STEPS_PER_TRIAL} steps")


if __name__ == "__main__":
    main()
