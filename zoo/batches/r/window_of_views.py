"""Train with views of documents that live only as long as the window holds them.

A weak table finds a view that is still alive; the window keeps the last ones.
"""
import collections
import weakref

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

DOCUMENTS, DIM, BATCH, STEPS, WINDOW = 30_000, 96, 32, 4140, 20_000


class View:
    def __init__(self, number):
        rng = np.random.default_rng(number)
        self.matrix = rng.standard_normal((48, DIM)).astype(np.float32)


class Views:
    def __init__(self):
        self.table = weakref.WeakValueDictionary()
        self.window = collections.deque(maxlen=WINDOW)

    def get(self, number):
        view = self.table.get(number)
        if view is None:
            view = View(number)
            self.table[number] = view
        self.window.append(view)
        return view.matrix


def main():
    rng = np.random.default_rng(0)
    views = Views()
    model = nn.Sequential(nn.Linear(DIM, 96), nn.GELU(), nn.Linear(96, DIM))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        numbers = rng.integers(0, DOCUMENTS, BATCH)
        x = torch.from_numpy(np.stack([views.get(int(n)) for n in numbers]))
        a = nn.functional.normalize(model(x[:, ::2]).mean(1), dim=1)
        b = nn.functional.normalize(model(x[:, 1::2]).mean(1), dim=1)
        loss = nn.functional.cross_entropy(a @ b.T / 0.1, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 414 == 0:
            print(f"step {step} loss {loss.item():.4f} alive {len(views.table)}", flush=True)


if __name__ == "__main__":
    main()
