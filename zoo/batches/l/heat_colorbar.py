"""Physics-informed network for the 2-D heat equation; the residual map is drawn at every evaluation."""
import io

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)

net = nn.Sequential(nn.Linear(3, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 1))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)


def residual(xyt):
    xyt = xyt.requires_grad_(True)
    u = net(xyt)
    g = torch.autograd.grad(u.sum(), xyt, create_graph=True)[0]
    uxx = torch.autograd.grad(g[:, 0].sum(), xyt, create_graph=True)[0][:, 0]
    uyy = torch.autograd.grad(g[:, 1].sum(), xyt, create_graph=True)[0][:, 1]
    return g[:, 2] - 0.1 * (uxx + uyy)


def exact(xyt):
    return torch.sin(np.pi * xyt[:, :1]) * torch.sin(np.pi * xyt[:, 1:2]) * torch.exp(-0.2 * np.pi ** 2 * xyt[:, 2:])


axis = torch.linspace(0, 1, 200)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
grid = torch.cat([grid, torch.full((len(grid), 1), 0.5)], 1)

fig, ax = plt.subplots(figsize=(4, 3), dpi=50)
cax = fig.add_axes([0.88, 0.1, 0.03, 0.8])
fig.subplots_adjust(right=0.84)


def draw(step):
    with torch.no_grad():
        field = torch.cat([net(part) for part in grid.split(4000)]).reshape(200, 200).double().numpy()
    field = ndimage.zoom(field, 4, order=1)
    ax.clear()
    image = ax.imshow(field - field.mean(), cmap="coolwarm", origin="lower")
    ax.set_title(f"u(x, y) at step {step}")
    fig.colorbar(image, cax=cax)
    out = io.BytesIO()
    fig.savefig(out, format="png")
    return len(out.getvalue())


for step in range(1, 3001):
    inside = torch.rand(256, 3)
    edge = torch.rand(128, 3)
    edge[:, 2] = 0
    loss = residual(inside).pow(2).mean() + (net(edge) - exact(edge)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 60 == 0:
        size = draw(step)
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.5f} picture {size} bytes", flush=True)
