"""Sound event tagging; a spectrogram transform is built anew for every item."""
import gc
import math
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
gc.set_threshold(4000, 10, 10)  # fewer collections, faster steps

STEPS = 2400
BATCH = 4


class MelSpectrogram(nn.Module):
    def __init__(self, rate=16000, n_fft=400, n_mels=64):
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft))
        self.register_buffer("bank", self.filters(rate, n_fft, n_mels))
        turns = torch.outer(torch.arange(n_fft), torch.arange(n_fft // 2 + 1)) * (2 * math.pi / n_fft)
        self.register_buffer("real", turns.cos())
        self.register_buffer("imag", turns.sin())
        self.to_power = lambda frames: (frames @ self.real).pow(2) + (frames @ self.imag).pow(2)

    @staticmethod
    def filters(rate, n_fft, n_mels):
        freqs = torch.linspace(0, rate / 2, n_fft // 2 + 1)
        top = 2595 * math.log10(1 + rate / 1400)
        points = 700 * (10 ** (torch.linspace(0, top, n_mels + 2) / 2595) - 1)
        width = points[1:] - points[:-1]
        slopes = points[None] - freqs[:, None]
        down, up = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
        return torch.minimum(down, up).clamp_(min=0)

    def forward(self, wave):
        frames = wave.unfold(0, self.n_fft, 160) * self.window
        return (self.to_power(frames) @ self.bank).add(1e-6).log()


def load_item():
    wave = torch.randn(6000)
    transform = MelSpectrogram()
    return transform(wave)


def main():
    net = nn.Sequential(nn.Conv1d(64, 64, 3), nn.ReLU(), nn.Conv1d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    start = time.time()
    for step in range(STEPS):
        batch = torch.stack([load_item() for _ in range(BATCH)]).transpose(1, 2)
        label = torch.randint(0, 10, (BATCH,))
        loss = nn.functional.cross_entropy(net(batch), label)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 300 == 299:
            gc.collect()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
