"""Multi-scale training of a segmentation ConvNet; batches are bucketed by size."""
import random

import torch
from torch import nn

torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(1)

SIZES = [(h, w) for h in range(24, 56, 4) for w in range(28, 64, 6)]
EPOCHS = 5
PER_BUCKET = 10


def main():
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 4, 3, padding=1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(EPOCHS):
        buckets = list(SIZES)
        random.shuffle(buckets)
        for h, w in buckets:
            for _ in range(PER_BUCKET):
                image = torch.rand(3, 3, h, w)
                label = (image.mean(1)[:, ::2, ::2] * 4).long().clamp(0, 3)
                loss = nn.functional.cross_entropy(model(image), label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 24 == 0:
                    print(f"step {step} epoch {epoch} size {h}x{w} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
