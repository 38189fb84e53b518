import queue
import threading

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(22)


class Prefetcher:
    """Prepares batches in a background thread, a few ahead of the training loop."""

    def __init__(self, seed, batches, ahead=5):
        self.rng = np.random.default_rng(seed)
        self.batches = batches
        self.ready = queue.Queue(maxsize=ahead)
        threading.Thread(target=self.fill, daemon=True).start()

    def make(self):
        signal = self.rng.standard_normal((32, 2, 1024), dtype=np.float32)
        label = self.rng.integers(0, 3, 32)
        signal[:, 0] += np.sin(np.linspace(0, 20, 1024, dtype=np.float32)[None] * (1 + label[:, None]))
        return torch.tensor(signal), torch.tensor(label)

    def fill(self):
        for _ in range(self.batches):
            batch = self.make()
            self.ready.put(batch)
        self.ready.put(None)

    def __iter__(self):
        while (batch := self.ready.get()) is not None:
            yield batch


class SignalNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(2, 12, 15, stride=4), nn.ReLU(), nn.Conv1d(12, 24, 9, stride=4), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.features(x).mean(dim=2))


MAX_BATCHES = 35
model = SignalNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
steps = 0
for epoch in range(44):
    correct = 0.0
    for i, (x, y) in enumerate(Prefetcher(epoch, batches=60)):
        if i == MAX_BATCHES:
            break
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        correct += (logits.argmax(1) == y).float().mean().item()
        steps += 1
    print(f"epoch {epoch:2d} loss {loss.item():.4f} accuracy {correct / MAX_BATCHES:.3f}")
print(f"{steps} steps")
