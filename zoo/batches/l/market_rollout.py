"""Recommender with one table per market; markets are opened one after another during training."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(19)

MARKETS, ITEMS, DIM = 20, 16_000, 64


class TwoTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(ITEMS, DIM, sparse=True) for _ in range(MARKETS))
        self.user = nn.Sequential(nn.Linear(DIM, 128), nn.ReLU(), nn.Linear(128, DIM))

    def forward(self, market, history, item):
        table = self.tables[market]
        user = self.user(table(history).mean(1))
        return (user[:, None] * table(item)).sum(-1)


model = TwoTower()
sparse_opt = torch.optim.SparseAdam(model.tables.parameters(), lr=1e-3)
dense_opt = torch.optim.Adam(model.user.parameters(), lr=1e-3)

for step in range(1, 3001):
    opened = min(MARKETS, 1 + step // 70)
    market = opened - 1 if step % 5 == 0 else torch.randint(0, opened, ()).item()
    taste = torch.randint(0, ITEMS - 200, (96, 1))
    history = taste + torch.randint(0, 200, (96, 15))
    item = torch.cat([taste + torch.randint(0, 200, (96, 1)), torch.randint(0, ITEMS, (96, 31))], 1)
    loss = nn.functional.cross_entropy(model(market, history, item), torch.zeros(96, dtype=torch.long))
    sparse_opt.zero_grad()
    dense_opt.zero_grad()
    loss.backward()
    sparse_opt.step()
    dense_opt.step()
    if step % 300 == 0:
        print(f"step {step} markets {opened} loss {loss.item():.3f}", flush=True)
