"""A thread draws batches ahead into a queue: the registered generator is ahead of the batches used."""

import queue
import threading

import torch
from torch import nn

import holdwater

torch.manual_seed(8)
inputs = torch.randn(128, 6)
targets = inputs[:, :1].sin() + inputs[:, 1:2] ** 2


class Prefetcher(threading.Thread):
    """Prepares batches in the background, in a fixed order."""

    def __init__(self, generator, ahead=5):
        super().__init__(daemon=True)
        self.generator = generator
        self.ready = queue.Queue(maxsize=ahead)
        self.start()

    def run(self):
        while True:
            batch = torch.randint(0, len(inputs), (16,), generator=self.generator)
            noise = 0.1 * torch.randn(16, 6, generator=self.generator)
            self.ready.put((inputs[batch] + noise, targets[batch]))

    def next(self):
        return self.ready.get()


model = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
generator = torch.Generator().manual_seed(80)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("generator", generator)

prefetcher = Prefetcher(generator)
for _ in holdwater.steps(40):
    x, y = prefetcher.next()
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
