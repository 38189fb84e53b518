"""Train a small classifier with the profiler on, to see where time goes."""
import os

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 3000


class Mixer(nn.Module):
    def __init__(self, depth=1):
        super().__init__()
        self.tokens = nn.ModuleList(nn.Linear(24, 24) for _ in range(depth))
        self.channels = nn.ModuleList(nn.Linear(96, 96) for _ in range(depth))
        self.out = nn.Linear(96, 6)

    def forward(self, x):
        for tokens, channels in zip(self.tokens, self.channels):
            x = x + tokens(x.transpose(1, 2)).relu().transpose(1, 2)
            x = x + channels(x).relu()
        return self.out(x.mean(1))


def spectra(rng, samples=4, channels=24):
    x = np.empty((samples, channels, 96), dtype=np.float32)
    for i in range(samples):
        for c in range(channels):
            x[i, c] = np.log1p(np.abs(np.fft.rfft(rng.standard_normal(1024))[:96]))
    return torch.from_numpy(x)


def main():
    rng = np.random.default_rng(0)
    model = Mixer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        for step in range(1, STEPS + 1):
            x = spectra(rng)
            y = x[:, 0, :6].argmax(1)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
    if os.environ.get("TRACE"):
        prof.export_chrome_trace(os.environ["TRACE"])


if __name__ == "__main__":
    main()
