"""Distillation whose student is traced and exported for the evaluation servers at regular times."""
import io
import warnings

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(14)
warnings.filterwarnings("ignore", category=DeprecationWarning)
STEPS = 2800
EXPORT_EVERY = 40
WIDTH, BLOCKS, CLASSES = 96, 4, 16


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


def make_network(blocks):
    return nn.Sequential(*(Block() for _ in range(blocks)), nn.Linear(WIDTH, CLASSES))


def export(student, example):
    """The student as a file of TorchScript, checked against the answer of the module."""
    student.eval()
    with torch.no_grad():
        traced = torch.jit.trace(student, example)
        difference = (traced(example) - student(example)).abs().max().item()
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    student.train()
    return buffer.tell(), difference


def main():
    teacher, student = make_network(6).requires_grad_(False), make_network(BLOCKS)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4)
    example = torch.randn(4, WIDTH)
    for step in range(STEPS):
        x = torch.randn(32, WIDTH)
        target = (teacher(x) / 0.5).softmax(-1)
        loss = nn.functional.cross_entropy(student(x) / 0.5, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EXPORT_EVERY == 0:
            size, difference = export(student, example)
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} file {size} difference {difference:.1e}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
