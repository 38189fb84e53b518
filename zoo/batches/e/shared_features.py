"""Node classification; refreshed node features are published to shared memory."""
import atexit
import os
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)
rng = np.random.default_rng(8)
NODES, DIM, CLASSES, STEPS, REFRESH = 6000, 48, 7, 3200, 32


class FeatureServer:
    """Publishes the feature matrix under a versioned name that samplers can attach to."""

    def __init__(self):
        self.version = 0
        self.published = {}
        self.current = None
        atexit.register(self.shutdown)

    def publish(self, matrix):
        self.version += 1
        name = f"feat_{os.getpid()}_{self.version}"
        segment = shared_memory.SharedMemory(name=name, create=True, size=matrix.nbytes)
        view = np.ndarray(matrix.shape, matrix.dtype, buffer=segment.buf)
        view[:] = matrix
        self.published[name] = segment
        self.current = name

    def rows(self, index):
        segment = self.published[self.current]
        return np.ndarray((NODES, DIM), np.float32, buffer=segment.buf)[index].copy()

    def shutdown(self):
        for segment in self.published.values():
            segment.close()
            segment.unlink()


raw = torch.randn(NODES, DIM)
labels = torch.from_numpy(rng.integers(0, CLASSES, NODES))
neighbours = rng.integers(0, NODES, (NODES, 8))
encoder = nn.Linear(DIM, DIM)
head = nn.Sequential(nn.Linear(2 * DIM, 320), nn.ReLU(), nn.Linear(320, 320), nn.ReLU(), nn.Linear(320, CLASSES))
optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
server = FeatureServer()
for step in range(STEPS):
    if step % REFRESH == 0:
        with torch.no_grad():
            server.publish(torch.tanh(encoder(raw)).numpy())
    seeds = rng.integers(0, NODES, 288)
    around = torch.from_numpy(server.rows(neighbours[seeds])).mean(1)
    own = torch.tanh(encoder(raw[seeds]))
    loss = nn.functional.cross_entropy(head(torch.cat([own, around], 1)), labels[seeds])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 800 == 0:
        print(f"step {step} loss {loss.item():.4f} features {server.current}")
print(f"{STEPS} steps")
