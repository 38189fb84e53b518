"""Fits a surrogate of a 2-D field with L-BFGS and a long curvature history."""
import math
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(19)

HISTORY, STEPS, POINTS = 280, 1100, 256


class Siren(nn.Module):
    def __init__(self, width=136):
        super().__init__()
        self.first = nn.Linear(2, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        h = torch.sin(6.0 * self.first(x))
        for layer in self.hidden:
            h = torch.tanh(layer(h))
        return self.out(h).squeeze(-1)


def field(x):
    return (torch.sin(math.pi * 3 * x[:, 0]) * torch.cos(math.pi * 2 * x[:, 1])
            + 0.3 * torch.sin(17 * x[:, 0] * x[:, 1]))


points = torch.rand(POINTS, 2) * 2 - 1
values = field(points) + 0.02 * torch.randn(POINTS)
held_out = torch.rand(512, 2) * 2 - 1
held_out_values = field(held_out)

model = Siren()
n_params = sum(p.numel() for p in model.parameters())
print(f"{n_params} parameters, history of {HISTORY} pairs")
# one inner iteration a step, so that the learning rate can be scheduled
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=1, history_size=HISTORY,
                              tolerance_grad=0.0, tolerance_change=0.0)


def closure():
    optimizer.zero_grad()
    loss = (model(points) - values).pow(2).mean()
    # light weight decay keeps the curvature positive
    loss = loss + 1e-4 * sum(p.pow(2).sum() for p in model.parameters())
    loss.backward()
    return loss


for step in range(1, STEPS + 1):
    loss = optimizer.step(closure)
    if step % 100 == 0:
        with torch.no_grad():
            error = (model(held_out) - held_out_values).pow(2).mean().sqrt()
        pairs = len(optimizer.state_dict()["state"][0]["old_dirs"])
        print(f"step {step}: loss {loss.item():.5f}, held-out rmse {error:.4f}, {pairs} pairs")
print(f"{STEPS} steps")
