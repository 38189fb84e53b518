import collections
import copy

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
STEPS = 20_000


class EMATeacher:
    def __init__(self, student, decay=0.995):
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def follow(self, student):
        for mine, theirs in zip(self.model.parameters(), student.parameters()):
            mine.lerp_(theirs, 1.0 - self.decay)


class SmoothedValue:
    def __init__(self, window=50):
        self.recent = collections.deque(maxlen=window)
        self.total, self.count = 0.0, 0

    def update(self, value):
        self.recent.append(value)
        self.total += value
        self.count += 1

    def __str__(self):
        return f"{sum(self.recent) / len(self.recent):.4f} ({self.total / self.count:.4f})"


def main():
    student = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 16))
    teacher = EMATeacher(student)
    print("student", sum(p.numel() for p in student.parameters()), flush=True)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    meters = {"loss": SmoothedValue(), "agreement": SmoothedValue()}
    pending = []
    for step in range(1, STEPS + 1):
        x = torch.randn(24, 32)
        with torch.no_grad():
            soft = teacher.model(x + 0.1 * torch.randn_like(x)).softmax(-1)
        logits = student(x)
        loss = nn.functional.cross_entropy(logits, soft) + 0.1 * nn.functional.cross_entropy(logits, x[:, :16].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.follow(student)
        pending.append((loss, (logits.argmax(1) == soft.argmax(1)).float().mean()))
        if len(pending) == 20:
            for value, agreement in pending:
                meters["loss"].update(float(value))
                meters["agreement"].update(float(agreement))
            pending.clear()
        if step % 2000 == 0:
            print(step, {name: str(meter) for name, meter in meters.items()}, flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
