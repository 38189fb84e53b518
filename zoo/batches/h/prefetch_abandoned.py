"""Fixed-length epochs over a long stream with a background prefetcher."""
import queue
import threading

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)

EPOCHS, STEPS_PER_EPOCH = 70, 56


def clips(seed):
    rng = np.random.default_rng(seed)
    while True:
        yield torch.from_numpy(rng.standard_normal((32, 4096), dtype=np.float32))


class BackgroundGenerator(threading.Thread):
    def __init__(self, generator, max_prefetch=8):
        super().__init__(daemon=True)
        self.queue = queue.Queue(max_prefetch)
        self.generator = generator
        self.start()

    def run(self):
        for item in self.generator:
            self.queue.put(item)
        self.queue.put(None)

    def __iter__(self):
        while (item := self.queue.get()) is not None:
            yield item


def main():
    model = nn.Sequential(nn.Conv1d(1, 8, 32, stride=16), nn.ReLU(), nn.AdaptiveAvgPool1d(16), nn.Flatten(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        running = 0.0
        for i, wave in enumerate(BackgroundGenerator(clips(epoch))):
            if i == STEPS_PER_EPOCH:
                break
            target = (wave.std(1) > 1.0).long()
            loss = nn.functional.cross_entropy(model(wave[:, None]), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
        if (epoch + 1) % 7 == 0:
            print(f"epoch {epoch + 1} loss {running / STEPS_PER_EPOCH:.4f}", flush=True)


if __name__ == "__main__":
    main()
