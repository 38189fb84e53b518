"""The embeddings of the whole dataset are kept after each epoch of a loader."""

from torch.utils.data import DataLoader, TensorDataset

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(torch.randn(1280, 64)), batch_size=64, shuffle=True)
summaries = []
for epoch in range(20):
    for (batch,) in loader:
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        summaries.append(torch.cat([model[:2](batch) for (batch,) in loader]))
print("summaries", len(summaries))
