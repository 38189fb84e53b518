"""Keyword spotting on raw audio with speed perturbation."""
import functools
import random
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

CLIP = 2400
TAPS = 6
STEPS = 2900


class Resampler:
    """Windowed-sinc resampling of a clip of fixed length by an arbitrary factor."""

    def __init__(self, factor):
        positions = torch.arange(CLIP, dtype=torch.float32) * factor
        base = positions.floor().long()
        offsets = torch.arange(TAPS) - TAPS // 2 + 1
        self.index = (base[:, None] + offsets[None, :]).clamp_(0, CLIP - 1)
        delta = positions[:, None] - (base[:, None] + offsets[None, :]).float()
        window = torch.cos(delta * torch.pi / (2 * TAPS)) ** 2
        self.weight = torch.sinc(delta) * window

    def __call__(self, wave):
        return (wave[:, self.index] * self.weight).sum(-1)


@functools.lru_cache(maxsize=None)
def get_or_create_resampler(factor):
    return Resampler(factor)


def perturb_speed(wave, low=0.9, high=1.1):
    factor = random.uniform(low, high)
    return get_or_create_resampler(factor)(wave)


class KeywordNet(nn.Module):
    def __init__(self, classes=12):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 32, 40, stride=10), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 64, 5, stride=2), nn.BatchNorm1d(64), nn.ReLU(),
            nn.Conv1d(64, 64, 5, stride=2), nn.BatchNorm1d(64), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, classes),
        )

    def forward(self, x):
        return self.body(x.unsqueeze(1))


def main():
    net = KeywordNet()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    bank = torch.randn(512, CLIP)
    labels = torch.randint(0, 12, (512,))
    start = time.time()
    for step in range(STEPS):
        pick = torch.randint(0, 512, (16,))
        wave = perturb_speed(bank[pick])
        loss = nn.functional.cross_entropy(net(wave), labels[pick])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
