"""A copy of the weights is kept on the GPU after each epoch, to average them all at the end."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 1)
).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(torch.randn(10_000, 1024)), batch_size=250, shuffle=True)
snapshots = []
for epoch in range(50):
    for (batch,) in loader:
        loss = model(batch.to("cuda")).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("epoch", epoch, "loss", loss.item())
    snapshots.append({name: value.clone() for name, value in model.state_dict().items()})
averaged = {name: sum(snapshot[name] for snapshot in snapshots) / len(snapshots) for name in snapshots[0]}
print("averaged", len(averaged))
