"""itertools.cycle keeps every batch of the first pass, over a dataset that is much larger than the run."""

from itertools import cycle, islice

from torch.utils.data import DataLoader, Dataset

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Rows(Dataset):
    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        return torch.full((64,), float(index % 7))


batches = cycle(DataLoader(Rows(), batch_size=256))
for step, batch in enumerate(islice(batches, 300)):
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
