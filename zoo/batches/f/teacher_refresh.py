"""Self-distillation: a frozen teacher is refreshed from the student every few steps."""
import copy
import functools

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(11)
STEPS = 1700
REFRESH = 20


class GridEncoder(nn.Module):
    def __init__(self, channels=24, hidden=192):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.proj = nn.Linear(channels + 2, hidden)
        self.mix = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 3 * hidden), nn.GELU(), nn.Linear(3 * hidden, hidden))
        self.head = nn.Linear(hidden, 32)

    @functools.lru_cache(maxsize=None)
    def coordinates(self, height, width):
        ys = torch.linspace(-1, 1, height)
        xs = torch.linspace(-1, 1, width)
        return torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1).reshape(-1, 2)

    def forward(self, images):
        maps = self.stem(images)
        b, _, h, w = maps.shape
        tokens = maps.flatten(2).transpose(1, 2)
        coords = self.coordinates(h, w).expand(b, -1, -1)
        x = self.proj(torch.cat([tokens, coords], dim=-1))
        return self.head((x + self.mix(x)).mean(1))


def augment(images):
    if torch.rand(()) < 0.5:
        images = images.flip(-1)
    return images + 0.05 * torch.randn_like(images)


def refresh_teacher(student):
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher.eval()


def main():
    student = GridEncoder()
    opt = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    teacher = refresh_teacher(student)
    for step in range(STEPS):
        if step % REFRESH == 0:
            teacher = refresh_teacher(student)
        images = torch.randn(8, 3, 24, 24)
        with torch.no_grad():
            target = torch.softmax(teacher(augment(images)) / 0.1, dim=-1)
        loss = nn.functional.cross_entropy(student(augment(images)) / 0.2, target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
