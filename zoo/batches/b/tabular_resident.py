import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(5)


def load_columns(parts=16, rows=25_000, numeric=72, seed=8):
    """Reads the table part by part and joins the parts."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(parts):
        block = rng.standard_normal((rows, numeric), dtype=np.float32)
        block[:, ::9] = np.round(block[:, ::9] * 4)
        blocks.append(block)
    return np.concatenate(blocks)


class TabularNet(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.layers = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 128), nn.ReLU())
        self.out = nn.Linear(128, 1)

    def forward(self, x):
        return self.out(self.layers(self.norm(x))).squeeze(1)


table = torch.from_numpy(load_columns())
weights = torch.randn(table.shape[1]) / 8
target = torch.tanh(table @ weights) + 0.1 * torch.randn(len(table))
print(f"loaded {tuple(table.shape)}")

model = TabularNet(table.shape[1])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
rows_per_epoch, batch = 160_000, 256
totals = torch.zeros(5)
steps = 0
for epoch in range(5):
    order = torch.randperm(len(table))[:rows_per_epoch]
    for start in range(0, rows_per_epoch, batch):
        rows = order[start:start + batch]
        loss = (model(table[rows]) - target[rows]).pow(2).mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        totals[epoch] += loss.detach()
        steps += 1
    schedule.step()
    print(f"epoch {epoch} loss {totals[epoch].item() * batch / rows_per_epoch:.4f}")
print(f"{steps} steps")
