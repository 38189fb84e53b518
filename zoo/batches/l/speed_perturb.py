"""Speaker classifier with speed perturbation; the resampling kernels are kept by their pair of rates."""
import math

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(11)

RATE = 16000
RATES = [RATE + 10 * sign * k for k in (1, 3, 7, 9, 11, 13, 17, 19, 21, 23, 27, 29) for sign in (1, -1)]
_kernels = {}


def sinc_kernel(orig, new, zeros=6, rolloff=0.99):
    g = math.gcd(orig, new)
    orig, new = orig // g, new // g
    base = min(orig, new) * rolloff
    width = math.ceil(zeros * orig / base)
    idx = torch.arange(-width, width + orig)[None] / orig
    t = (torch.arange(0, -new, -1)[:, None] / new + idx) * base
    t = t.clamp(-zeros, zeros)
    window = torch.cos(t * math.pi / zeros / 2) ** 2
    return (torch.sinc(t) * window * (base / orig))[:, None], width, orig, new


def resample(wave, orig, new):
    key = (orig, new)
    if key not in _kernels:
        _kernels[key] = sinc_kernel(orig, new)
    kernel, width, stride, phases = _kernels[key]
    padded = nn.functional.pad(wave[:, None], (width, width + stride))
    return nn.functional.conv1d(padded, kernel, stride=stride).transpose(1, 2).reshape(len(wave), -1)


def clip_of(speaker):
    t = torch.arange(8000) / RATE
    f = 90 + 25 * speaker[:, None]
    return sum(torch.sin(6.283 * f * h * t) / h for h in (1, 2, 3)) + 0.3 * torch.randn(len(speaker), 8000)


net = nn.Sequential(nn.Conv1d(1, 24, 64, stride=16), nn.ReLU(), nn.Conv1d(24, 32, 9, stride=4), nn.ReLU(),
                    nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(128, 12))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
window = torch.hann_window(400)

for step in range(1, 4001):
    speaker = torch.randint(0, 12, (12,))
    wave = clip_of(speaker)
    if step % 16 == 0:
        pick = RATES[torch.randint(len(RATES), ()).item()]
        wave = resample(wave, pick, RATE)[:, :7600]
    loss = nn.functional.cross_entropy(net(wave[:, None, :7600]), speaker)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.3f} kernels {len(_kernels)}", flush=True)
