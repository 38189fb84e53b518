"""Convolutional net; each evaluation traces the current weights and times the traced module."""
import time
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.manual_seed(5)

STEPS = 1800
EVAL_EVERY = 30


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Linear(width, width)
        self.b = nn.Linear(width, width)

    def forward(self, x):
        return x + self.b(F.gelu(self.a(x)))


model = nn.Sequential(nn.Linear(64, 128), *[Block(128) for _ in range(12)], nn.Linear(128, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)


def latency(model):
    model.eval()
    example = torch.randn(8, 64)
    traced = torch.jit.trace(model, example, check_trace=False)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(4):
            traced(example)
    model.train()
    return (time.perf_counter() - start) / 4


for step in range(1, STEPS + 1):
    x = torch.randn(48, 64)
    y = x[:, :10].argmax(1)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % EVAL_EVERY == 0:
        ms = 1000 * latency(model)
        if step % 180 == 0:
            print(f"step {step} loss {loss.item():.4f} traced {ms:.2f} ms", flush=True)
