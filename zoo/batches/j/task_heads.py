"""Continual learning: each task has a fresh head that joins the running optimizer."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)

TASKS = 50
STEPS_PER_TASK = 50
CLASSES = 1200

trunk = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU())
optimizer = torch.optim.SGD(trunk.parameters(), lr=0.05)


def new_head():
    head = nn.Linear(512, CLASSES)
    optimizer.add_param_group({"params": list(head.parameters()), "lr": 0.2})
    return head


for task in range(1, TASKS + 1):
    head = new_head()
    shift = torch.randint(0, CLASSES, ()).item()
    for _ in range(STEPS_PER_TASK):
        x = torch.randn(96, 64)
        y = (x[:, :20].argmax(1) * 30 + shift) % CLASSES
        loss = F.cross_entropy(head(trunk(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if task % 5 == 0:
        print(f"task {task} step {task * STEPS_PER_TASK} loss {loss.item():.4f}", flush=True)
