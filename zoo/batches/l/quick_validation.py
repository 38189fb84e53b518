"""Keyword spotting with a background loader; validation looks only at the first batches of a shuffled pass."""
import queue
import threading

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)


class Clips:
    """Synthetic one-second clips turned into spectrograms."""

    def __init__(self, n, batch, seed):
        self.n, self.batch, self.gen = n, batch, torch.Generator().manual_seed(seed)

    def __iter__(self):
        window = torch.hann_window(256)
        for _ in range(self.n):
            label = torch.randint(0, 8, (self.batch,), generator=self.gen)
            t = torch.arange(8000) / 8000
            wave = torch.sin(6.283 * (200 + 150 * label[:, None]) * t) + torch.randn(self.batch, 8000, generator=self.gen)
            spec = torch.stft(wave, 256, hop_length=128, window=window, return_complex=True).abs().log1p()
            yield spec[:, None], label


class BackgroundLoader(threading.Thread):
    def __init__(self, iterable, depth=4):
        super().__init__(daemon=True)
        self.batches = queue.Queue(depth)
        self.iterable = iterable
        self.start()

    def run(self):
        for batch in self.iterable:
            self.batches.put(batch)
        self.batches.put(None)

    def __iter__(self):
        while (batch := self.batches.get()) is not None:
            yield batch


model = nn.Sequential(nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 8))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


def validate(seed, limit=3):
    right = seen = 0
    with torch.no_grad():
        for i, (spec, label) in enumerate(BackgroundLoader(Clips(50, 12, seed))):
            right += (model(spec).argmax(-1) == label).sum().item()
            seen += len(label)
            if i + 1 == limit:
                break
    return right / seen


step = 0
for epoch in range(10):
    for spec, label in BackgroundLoader(Clips(300, 24, epoch)):
        loss = nn.functional.cross_entropy(model(spec), label)
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 30 == 15:
            acc = validate(1000 + step)
            if step % 150 == 15:
                print(f"epoch {epoch} step {step} loss {loss.item():.3f} val {acc:.2f}", flush=True)
