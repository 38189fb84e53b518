"""Acoustic model; the clip length is raised until whole utterances are used."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 1100
FULL_AT = 500
SHORT, LONG = 40, 600


class Acoustic(nn.Module):
    def __init__(self, bands=40, width=64, states=48):
        super().__init__()
        self.inp = nn.Conv1d(bands, width, 5, padding=2)
        self.mid = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.out = nn.Conv1d(width, states, 1)

    def forward(self, x):
        y = torch.relu(self.inp(x))
        for layer in self.mid:
            y = y + torch.relu(layer(y))
        return self.out(y)


def frames_at(step):
    share = min(step / FULL_AT, 1.0)
    return int(SHORT + share * (LONG - SHORT)) // 20 * 20


def main():
    net = Acoustic()
    opt = torch.optim.Adam(net.parameters(), lr=5e-4)
    start = time.time()
    for step in range(STEPS):
        frames = frames_at(step)
        x = torch.randn(16, 40, frames)
        target = torch.randint(0, 48, (16, frames))
        loss = nn.functional.cross_entropy(net(x), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 100 == 0:
            print(f"step {step} frames {frames} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
