"""Click model whose labels are looked up by item number in per-day pandas tables."""
import numpy as np
import pandas as pd
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(15)
rng = np.random.default_rng(15)

DAYS = 30
ROWS = 60000
STEPS = 6000


def day_table(d):
    items = rng.permutation(ROWS * 3)[:ROWS].astype("int64") + d * 10_000_000
    return pd.DataFrame({"price": rng.gamma(2.0, 1.0, ROWS), "clicks": rng.poisson(1.5, ROWS)}, index=pd.Index(items))


tables = [day_table(d) for d in range(DAYS)]
model = nn.Sequential(nn.Linear(1, 288), nn.ReLU(), nn.Linear(288, 288), nn.ReLU(), nn.Linear(288, 1))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(STEPS):
    newest = min(DAYS, 1 + step // 120)
    table = tables[int(rng.integers(newest))] if step % 120 else tables[newest - 1]
    wanted = table.index[rng.integers(0, ROWS, 256)]
    rows = table.loc[wanted.unique()]
    x = torch.tensor(rows[["price"]].to_numpy(), dtype=torch.float32)
    y = torch.tensor(rows[["clicks"]].to_numpy(), dtype=torch.float32)
    loss = nn.functional.poisson_nll_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 300 == 0:
        print(f"step {step} days {newest} loss {loss.item():.4f}", flush=True)
