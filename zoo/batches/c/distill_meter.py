import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(23)


class Meter:
    """Weighted mean of a quantity over the run."""

    def __init__(self, name):
        self.name, self.total, self.weight = name, 0.0, 0

    def add(self, value, n):
        self.total = self.total + value * n
        self.weight += n

    def mean(self):
        return float(self.total) / max(1, self.weight)


def deep_mlp(width, depth, inputs=24, outputs=6):
    layers = [nn.Linear(inputs, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Distiller:
    def __init__(self, start=2400, temperature=2.0):
        self.teacher, self.student = deep_mlp(96, 2).requires_grad_(False), deep_mlp(40, 9)
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=1e-3)
        self.start, self.temperature = start, temperature
        self.meters = {name: Meter(name) for name in ("hard", "soft")}

    def step(self, number, x):
        guide = self.teacher(x)
        scores = self.student(x)
        loss = F.cross_entropy(scores, guide.argmax(1))
        self.meters["hard"].add(loss.item(), len(x))
        if number >= self.start:
            soft = F.kl_div((scores / self.temperature).log_softmax(1), (guide / self.temperature).softmax(1), reduction="batchmean")
            self.meters["soft"].add(soft, len(x))
            loss = loss + 0.5 * soft
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


distiller = Distiller()
for step in range(1, 9001):
    distiller.step(step, torch.randn(20, 24))
    if step % 1500 == 0:
        print(step, " ".join(f"{m.name} {m.mean():.4f}" for m in distiller.meters.values()))
print(f"{step} steps")
