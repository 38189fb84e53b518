"""Checkpoint averaging: snapshots are written to disk and mapped back for the average."""
import os
import tempfile

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)


class CheckpointAverager:
    def __init__(self, model, folder):
        self.model, self.folder = model, folder
        self.snapshots, self.mean = [], None

    def save(self, step):
        path = os.path.join(self.folder, f"step{step:05d}.pt")
        torch.save(self.model.state_dict(), path)
        state = torch.load(path, mmap=True, weights_only=True)
        self.snapshots.append(state)
        if self.mean is None:
            self.mean = {key: value.clone() for key, value in state.items()}
        for key, value in state.items():
            self.mean[key].lerp_(value, 1.0 / len(self.snapshots))


class Residual(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width)

    def forward(self, x):
        return x + self.down(nn.functional.silu(self.up(self.norm(x))))


def train(steps, every, folder):
    model = nn.Sequential(Residual(128, 512), Residual(128, 512), nn.Linear(128, 10))
    averager = CheckpointAverager(model, folder)
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    rule = torch.randn(128, 10)
    for step in range(1, steps + 1):
        x = torch.randn(64, 128)
        loss = nn.functional.cross_entropy(model(x), (x @ rule).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % every == 0:
            averager.save(step)
            print(f"saved {step}, loss {loss.item():.3f}, snapshots {len(averager.snapshots)}")
    return steps


with tempfile.TemporaryDirectory() as folder:
    done = train(5600, 80, folder)
    print(f"{done} steps")
