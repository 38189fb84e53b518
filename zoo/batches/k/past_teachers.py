"""Self-distillation from earlier snapshots of the same network, mapped from disk."""
import os
import random
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)


class Distiller:
    def __init__(self, model, folder):
        self.model, self.folder = model, folder
        self.teachers = []

    def snapshot(self, step):
        path = os.path.join(self.folder, f"teacher_{step}.pt")
        torch.save(self.model.state_dict(), path)
        state = torch.load(path, mmap=True, weights_only=True)
        self.teachers.append(state)

    @torch.no_grad()
    def soft_targets(self, x):
        picked = [self.teachers[-1], random.choice(self.teachers)]
        return sum(functional_call(self.model, s, (x,)).softmax(1) for s in picked) / 2


model = nn.Sequential(nn.Linear(256, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 20))
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
proj = torch.randn(256, 20)
with tempfile.TemporaryDirectory() as folder:
    distiller = Distiller(model, folder)
    for step in range(1, 2401):
        if step % 40 == 1:
            distiller.snapshot(step)
        x = torch.randn(32, 256)
        y = (x @ proj).argmax(1)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss = loss + 0.5 * F.kl_div(logits.log_softmax(1), distiller.soft_targets(x), reduction="batchmean")
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 240 == 0:
            print(f"step {step} loss {loss.item():.3f} teachers {len(distiller.teachers)}", flush=True)
