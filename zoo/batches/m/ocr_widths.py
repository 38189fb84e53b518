"""Text line recognition; lines come in many widths, shortest first."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

WIDTHS = list(range(32, 192, 4))
REPEATS = 18
EPOCHS = 3


class LineNet(nn.Module):
    def __init__(self, classes=20):
        super().__init__()
        layers, last = [], 1
        for width, pool in ((16, 2), (32, 2), (48, 1)):
            layers += [nn.Conv2d(last, width, 3, padding=1), nn.ReLU()]
            if pool == 2:
                layers.append(nn.MaxPool2d(2))
            last = width
        self.conv = nn.Sequential(*layers)
        self.head = nn.Conv1d(last, classes, 3, padding=1)

    def forward(self, x):
        return self.head(self.conv(x).mean(2))


def main():
    net = LineNet()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    start, step = time.time(), 0
    for epoch in range(EPOCHS):
        for width in WIDTHS:
            for _ in range(REPEATS):
                lines = torch.rand(4, 1, 24, width)
                logits = net(lines)
                target = torch.randint(0, 20, (4, logits.shape[-1]))
                loss = nn.functional.cross_entropy(logits, target)
                opt.zero_grad()
                loss.backward()
                opt.step()
                step += 1
            if width % 32 == 0:
                print(f"epoch {epoch} width {width} step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
