"""Classifier fed by a background augmentation thread."""
import queue
import threading

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
STEPS, BATCH, SIDE, CLASSES, DEPTH = 2200, 16, 40, 8, 260


class BackgroundAugmenter:
    """Augments batches ahead of the training loop."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.rng = np.random.default_rng(18)
        self.ready = queue.Queue(maxsize=DEPTH)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _augment(self):
        pick = self.rng.integers(0, len(self.images), BATCH)
        batch = self.images[pick]
        batch = np.roll(batch, tuple(self.rng.integers(-4, 5, 2)), axis=(2, 3))
        noise = self.rng.standard_normal(batch.shape, dtype=np.float32)
        noise *= np.float32(0.05)
        noise += batch
        return noise, self.labels[pick]

    def _work(self):
        while not self.stopping.is_set():
            item = self._augment()
            while not self.stopping.is_set():
                try:
                    self.ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue

    def get_batch(self):
        images, labels = self.ready.get()
        return torch.from_numpy(images), torch.from_numpy(labels)

    def terminate(self):
        self.stopping.set()
        self.thread.join()


rng = np.random.default_rng(180)
labels = rng.integers(0, CLASSES, 400)
images = 0.4 * rng.random((400, 3, SIDE, SIDE), dtype=np.float32) + labels[:, None, None, None].astype(np.float32) / CLASSES
augmenter = BackgroundAugmenter(images, labels)
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(STEPS):
    x, y = augmenter.get_batch()
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.4f} waiting {augmenter.ready.qsize()}")
augmenter.terminate()
print(f"{STEPS} steps")
