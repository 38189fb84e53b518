"""A figure is drawn every second step and never closed."""

import warnings

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warnings.simplefilter("ignore")
for step in range(120):
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 2 == 0:
        figure = plt.figure(figsize=(4, 3))
        plt.plot(torch.rand(500).numpy())
        figure.canvas.draw()
print("figures", len(plt.get_fignums()))
