"""The list of metrics is cleared at the end of each epoch of 60 steps."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
metrics = []
for step in range(600):
    batch = torch.randn(64, 64)
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for row, value in enumerate(output.detach().squeeze(1).tolist()):
        metrics.append({"step": step, "row": row, "value": value, "curve": [value] * 40})
    if step % 60 == 59:
        print("mean", sum(row["value"] for row in metrics) / len(metrics))
        metrics.clear()
