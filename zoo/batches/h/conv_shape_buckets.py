"""Fully convolutional net on images of many sizes; each size bucket is met again and again."""
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(22)
random.seed(22)

STEPS = 3200
SIZES = [(h, w) for h in range(24, 66, 6) for w in range(24, 66, 6)]


def main():
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    running = 0.0
    for step in range(1, STEPS + 1):
        h, w = random.choice(SIZES)
        y = torch.randint(0, 5, (4,))
        x = torch.randn(4, 3, h, w) + y.view(-1, 1, 1, 1) * 0.2
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = 0.95 * running + 0.05 * loss.item()
        if step % 320 == 0:
            print(f"step {step} loss {running:.4f}", flush=True)


if __name__ == "__main__":
    main()
