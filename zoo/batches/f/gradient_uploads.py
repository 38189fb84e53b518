"""Image-free MLP training that ships weight-gradient snapshots to a slow metrics backend."""
import queue
import threading
import time

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(10)
STEPS = 3700


class MetricsBackend:
    def __init__(self, pending=260, latency=0.09):
        self.pending = queue.Queue(maxsize=pending)
        self.latency = latency
        self.sent, self.dropped = 0, 0
        threading.Thread(target=self.drain, daemon=True).start()

    def drain(self):
        while True:
            step, arrays = self.pending.get()
            time.sleep(self.latency)
            self.sent += sum(int(np.histogram(a, bins=32)[0].sum()) > 0 for a in arrays.values())

    def submit(self, step, arrays):
        while True:
            try:
                self.pending.put_nowait((step, arrays))
                return
            except queue.Full:
                self.pending.get_nowait()
                self.dropped += 1


def main():
    backend = MetricsBackend()
    model = nn.Sequential(nn.Linear(96, 224), nn.GELU(), nn.Linear(224, 224), nn.GELU(), nn.Linear(224, 10))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    projection = torch.randn(96, 10)
    for step in range(STEPS):
        x = torch.randn(256, 96)
        y = (x @ projection).argmax(1)
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        if step % 5 == 0:
            grads = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
            backend.submit(step, grads)
        opt.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.4f} waiting {backend.pending.qsize()} dropped {backend.dropped}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
