"""Keyword spotting on synthetic log-mel features with vocal tract length perturbation."""
import functools
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 3200
N_FFT = 1024
N_MELS = 40

torch.set_num_threads(1)
torch.manual_seed(3)


def hz_to_mel(hz):
    return 2595.0 * math.log10(1.0 + hz / 700.0)


@functools.lru_cache(maxsize=None)
def mel_bank(warp, sample_rate=16000):
    freqs = torch.linspace(0, sample_rate / 2, N_FFT // 2 + 1) * warp
    mels = 2595.0 * torch.log10(1.0 + freqs / 700.0)
    edges = torch.linspace(0, hz_to_mel(sample_rate / 2), N_MELS + 2)
    up = (mels[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mels[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp_(min=0)


class Spotter(nn.Module):
    def __init__(self, classes=12):
        super().__init__()
        self.conv1 = nn.Conv1d(N_MELS, 96, 5, padding=2)
        self.conv2 = nn.Conv1d(96, 96, 5, padding=2)
        self.head = nn.Linear(96, classes)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.head(x.mean(-1))


def main():
    model = Spotter()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    bank_of_words = torch.rand(12, N_FFT // 2 + 1)
    gen = torch.Generator().manual_seed(11)
    for step in range(1, STEPS + 1):
        y = torch.randint(0, 12, (16,), generator=gen)
        power = bank_of_words[y][:, None] + torch.rand(16, 50, N_FFT // 2 + 1)
        warp = 0.9 + 0.2 * torch.rand((), generator=gen).item()
        feats = torch.log(power @ mel_bank(warp) + 1e-5)
        loss = F.cross_entropy(model(feats.transpose(1, 2)), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}")


main()
