"""A metric object collects predictions and targets and is never reset."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Metric:
    def __init__(self):
        self.predictions, self.targets = [], []

    def update(self, prediction, target):
        self.predictions.append(prediction)
        self.targets.append(target)

    def compute(self):
        return float((torch.cat(self.predictions) - torch.cat(self.targets)).abs().mean())


metric = Metric()
for step in range(400):
    batch, target = torch.randn(2048, 64), torch.randn(2048, 1)
    output = model(batch)
    loss = (output - target).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    metric.update(output.detach(), target)
print("metric", metric.compute())
