"""A dataset keeps the rows that it has decoded: the growth ends with the first epoch."""

from torch.utils.data import DataLoader, Dataset

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Rows(Dataset):
    def __init__(self):
        self.decoded = {}

    def __len__(self):
        return 1600

    def __getitem__(self, index):
        if index not in self.decoded:
            self.decoded[index] = torch.full((64, 32), float(index % 7))
        return self.decoded[index][:, 0]


loader = DataLoader(Rows(), batch_size=16, shuffle=True)
for epoch in range(4):
    for batch in loader:
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print("done")
