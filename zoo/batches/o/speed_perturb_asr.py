"""Keyword spotting with speed perturbation of each batch."""
import functools
import math

import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)

SR = 16000
STEPS = 2800


@functools.lru_cache(maxsize=None)
def get_resampler(orig_freq, new_freq, width=12):
    gcd = math.gcd(orig_freq, new_freq)
    orig, new = orig_freq // gcd, new_freq // gcd
    base = min(orig, new) * 0.95
    half = math.ceil(width * orig / base)
    idx = torch.arange(-half, half + 1, dtype=torch.float32)[None, :] / orig
    phase = torch.arange(0, -min(new, 700), -1, dtype=torch.float32)[:, None] / new
    t = ((phase + idx) * base).clamp(-width, width)
    window = torch.cos(t * math.pi / width / 2) ** 2
    kernel = torch.where(t == 0, torch.ones_like(t), torch.sin(t * math.pi) / (t * math.pi))
    return kernel * window * (base / orig)


def perturb_speed(wave, factor):
    new_freq = int(round(SR / factor))
    kernel = get_resampler(SR, new_freq)
    taps = kernel[:: max(1, len(kernel) // 8)].mean(0)
    smooth = F.conv1d(wave[:, None], taps[None, None], padding=taps.numel() // 2)
    return F.interpolate(smooth, size=int(wave.shape[1] * new_freq / SR), mode="linear")[:, 0]


class KWS(nn.Module):
    def __init__(self, n=10):
        super().__init__()
        self.front = nn.Conv1d(1, 32, 64, stride=32)
        self.gru = nn.GRU(32, 48, batch_first=True)
        self.out = nn.Linear(48, n)

    def forward(self, wave):
        h = F.relu(self.front(wave[:, None]))
        _, s = self.gru(h.transpose(1, 2))
        return self.out(s[-1])


model = KWS()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
tone = torch.linspace(200, 1800, 10)
t = torch.arange(2000) / SR

for step in range(1, STEPS + 1):
    y = torch.randint(0, 10, (8,))
    wave = torch.sin(2 * math.pi * tone[y][:, None] * t) + 0.3 * torch.randn(8, 2000)
    factor = float(torch.empty(1).uniform_(0.8, 1.25))
    loss = F.cross_entropy(model(perturb_speed(wave, factor)), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"{step:5d} loss {loss.item():.3f}", flush=True)
