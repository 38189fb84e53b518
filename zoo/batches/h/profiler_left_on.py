"""Tone classifier on features computed on the fly, with the profiler around the whole loop (no schedule)."""
import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)
torch.manual_seed(1)

STEPS, BATCH, SAMPLES = 4000, 64, 256


def make_batch(rng, window):
    features = np.empty((BATCH, 32), np.float32)
    labels = rng.integers(0, 10, BATCH)
    for row, label in enumerate(labels):
        tone = np.sin(np.arange(SAMPLES) * (0.05 * (label + 1))) + rng.standard_normal(SAMPLES)
        features[row] = np.log1p(np.abs(np.fft.rfft(tone * window)[:32]))
    return torch.from_numpy(features), torch.from_numpy(labels)


def main():
    rng = np.random.default_rng(1)
    window = np.hanning(SAMPLES)
    model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    prof = profile(activities=[ProfilerActivity.CPU])
    prof.start()
    for step in range(1, STEPS + 1):
        x, y = make_batch(rng, window)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    prof.stop()


if __name__ == "__main__":
    main()
