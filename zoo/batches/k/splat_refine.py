"""Fit a cloud of 3-d blobs to a scalar field, relocating the weak ones every few steps."""
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

N, FEATS, STEPS, REFINE_EVERY = 10000, 48, 2600, 50


class Cloud:
    def __init__(self):
        self.points = nn.Parameter(torch.cat([torch.rand(N, 3), 0.1 * torch.randn(N, FEATS)], dim=1))
        self.opacity = nn.Parameter(torch.zeros(N, 1))

    def render(self, queries, subset):
        p = self.points[subset]
        d2 = torch.cdist(queries, p[:, :3]).square()
        w = torch.exp(-40.0 * d2) * torch.sigmoid(self.opacity[subset]).t()
        return (w @ p[:, 3:]) / (w.sum(1, keepdim=True) + 1e-4)


def swap_parameter(optimizer, group, index):
    old = group["params"][0]
    old_state = optimizer.state[old]
    new = nn.Parameter(old.detach()[index])
    moments = {k: v[index] if v.dim() > 0 else v for k, v in old_state.items()}
    group["params"][0] = new
    optimizer.state[new] = moments
    return new


def relocate(cloud, optimizer):
    alpha = cloud.opacity.detach().squeeze(1)
    order = alpha.argsort()
    index = torch.arange(N)
    index[order[: N // 20]] = order[-(N // 20):]
    for group in optimizer.param_groups:
        new = swap_parameter(optimizer, group, index)
        setattr(cloud, group["name"], new)


def field(q):
    ramps = torch.linspace(1, 4, FEATS)
    return torch.sin(q.sum(1, keepdim=True) * ramps)


cloud = Cloud()
optimizer = torch.optim.Adam(
    [
        {"params": [cloud.points], "lr": 2e-3, "name": "points"},
        {"params": [cloud.opacity], "lr": 1e-2, "name": "opacity"},
    ]
)
for step in range(1, STEPS + 1):
    q = torch.rand(256, 3)
    subset = torch.randint(0, N, (1500,))
    loss = (cloud.render(q, subset) - field(q)).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if step % REFINE_EVERY == 0:
        optimizer.zero_grad(set_to_none=True)
        relocate(cloud, optimizer)
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.4f} points {len(cloud.points)}", flush=True)
