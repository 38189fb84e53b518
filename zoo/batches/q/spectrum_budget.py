"""Spectrograms are kept up to a budget of bytes; the least recently used ones make room."""
import time
from collections import OrderedDict

import numpy as np
import torch
from scipy import signal
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
CLIPS, RATE, STEPS, BATCH, BUDGET = 6000, 8000, 3200, 8, 120 * 2**20


class SpectrumStore:
    def __init__(self, budget):
        self.kept, self.bytes, self.budget = OrderedDict(), 0, budget
        self.hits = self.misses = 0

    def get(self, clip):
        if clip in self.kept:
            self.hits += 1
            self.kept.move_to_end(clip)
            return self.kept[clip]
        self.misses += 1
        local = np.random.default_rng(clip)
        t = np.arange(RATE) / RATE
        wave = signal.chirp(t, 100 + 20 * (clip % 10), 1.0, 3500) + 0.1 * local.standard_normal(RATE)
        _, _, s = signal.spectrogram(wave, RATE, nperseg=256, noverlap=192)
        s = np.log1p(np.abs(s)).astype(np.float32)
        self.kept[clip] = s
        self.bytes += s.nbytes
        while self.bytes > self.budget:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return s


store = SpectrumStore(BUDGET)
model = nn.Sequential(nn.Conv1d(129, 96, 5, stride=2), nn.ReLU(), nn.Conv1d(96, 96, 5, stride=2), nn.ReLU(),
                      nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(96, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
began = time.time()
for step in range(1, STEPS + 1):
    clips = rng.integers(0, CLIPS, BATCH).tolist()
    x = torch.tensor(np.stack([store.get(c) for c in clips]))
    y = torch.tensor([c % 10 for c in clips])
    loss = nn.functional.cross_entropy(model(x * 100), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.4f} kept {len(store.kept)} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
