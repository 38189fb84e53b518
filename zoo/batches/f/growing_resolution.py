"""Progressive resizing: the training resolution follows a schedule up to its final value."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(14)
STEPS = 1050
SIZES = [24, 32, 40, 48, 56, 64, 72, 80]
RAMP_STEPS = 480
COUNT = 500


class ResizedPool:
    """Training images rendered at the current resolution."""

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        self.base = torch.from_numpy(rng.random((count, 3, 16, 16), dtype=np.float32))
        self.labels = (self.base.mean((1, 2, 3)) > 0.5).long() + 2 * (self.base[:, 0].mean((1, 2)) > 0.5).long()
        self.size, self.images = None, None

    def use(self, size):
        if size != self.size:
            self.images = nn.functional.interpolate(self.base, size=(size, size), mode="bilinear", align_corners=False)
            self.size = size

    def batch(self, n):
        rows = torch.randint(0, len(self.labels), (n,))
        return self.images[rows], self.labels[rows]


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def size_at(step):
    stage = min(step * len(SIZES) // RAMP_STEPS, len(SIZES) - 1)
    return SIZES[stage]


def main():
    pool, net = ResizedPool(COUNT), SmallNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step in range(STEPS):
        pool.use(size_at(step))
        images, labels = pool.batch(16)
        loss = nn.functional.cross_entropy(net(images), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 100 == 0:
            print(f"step {step} size {pool.size} loss {loss.item():.4f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
