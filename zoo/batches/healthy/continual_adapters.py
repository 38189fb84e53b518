"""Continual learning: a frozen backbone and one residual adapter per task."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, DEPTH, BOTTLENECK = 384, 3, 384
TASKS, STEPS_PER_TASK, REHEARSAL_STEPS = 6, 300, 1200


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(DEPTH))

    def forward(self, x, adapters):
        for layer, adapter in zip(self.layers, adapters):
            h = F.gelu(layer(x))
            x = x + h + adapter(h)
        return x


def make_adapter():
    return nn.Sequential(nn.Linear(DIM, BOTTLENECK), nn.GELU(), nn.Linear(BOTTLENECK, DIM))


class Task:
    """Adapters, head and optimizer of one task; kept for later rehearsal."""

    def __init__(self, number):
        self.adapters = nn.ModuleList(make_adapter() for _ in range(DEPTH))
        self.head = nn.Linear(DIM, 10)
        self.optimizer = torch.optim.AdamW(
            list(self.adapters.parameters()) + list(self.head.parameters()), lr=3e-4)
        self.centers = torch.randn(10, DIM, generator=torch.Generator().manual_seed(number))

    def batch(self, size=32):
        y = torch.randint(0, 10, (size,))
        return self.centers[y] + torch.randn(size, DIM), y


def train_step(backbone, task):
    x, y = task.batch()
    loss = F.cross_entropy(task.head(backbone(x, task.adapters)), y)
    task.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    task.optimizer.step()
    return loss.item()


def main():
    backbone = Backbone().requires_grad_(False)
    tasks, steps = [], 0
    for number in range(TASKS):
        tasks.append(Task(number))
        for _ in range(STEPS_PER_TASK):
            loss = train_step(backbone, tasks[-1])
            steps += 1
        print(f"task {number}: loss {loss:.4f}")
    # consolidation: go round all the tasks so that none drifts
    for i in range(REHEARSAL_STEPS):
        loss = train_step(backbone, tasks[i % TASKS])
        steps += 1
    print(f"rehearsal: loss {loss:.4f}")
    print(f"{steps} steps")


main()
