"""A loader with two worker processes that live as long as the run."""

from torch.utils.data import DataLoader, TensorDataset

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
if __name__ == "__main__":
    loader = DataLoader(
        TensorDataset(torch.randn(6400, 64)), batch_size=32, shuffle=True, num_workers=2, persistent_workers=True
    )
    for epoch in range(3):
        for (batch,) in loader:
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print("done")
