"""Train with a background batch producer; each epoch draws a fixed number of steps."""
import queue
import threading

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(13)
EPOCHS, STEPS_PER_EPOCH = 90, 30


class BackgroundBatches:
    def __init__(self, features, targets, batch_size, depth=6, seed=0):
        self.features, self.targets = features, targets
        self.batch_size = batch_size
        self.order = np.random.default_rng(seed).permutation(len(features))
        self.ready = queue.Queue(maxsize=depth)
        threading.Thread(target=self.produce, daemon=True).start()

    def produce(self):
        for start in range(0, len(self.order), self.batch_size):
            rows = self.order[start:start + self.batch_size]
            batch = self.features[rows]
            self.ready.put((batch, self.targets[rows]))
        self.ready.put(None)

    def __iter__(self):
        while (item := self.ready.get()) is not None:
            yield item


def make_data(count=12000, width=192):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, width), dtype=np.float32)
    mixing = rng.standard_normal((width, 8), dtype=np.float32)
    return features, np.tanh(features @ mixing / width ** 0.5)


def main():
    features, targets = make_data()
    model = nn.Sequential(nn.Linear(192, 360), nn.SiLU(), nn.Linear(360, 360), nn.SiLU(), nn.Linear(360, 8))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(EPOCHS):
        loader = BackgroundBatches(features, targets, batch_size=176, seed=epoch)
        running = 0.0
        for number, (x, y) in enumerate(loader, start=1):
            loss = nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(y))
            opt.zero_grad()
            loss.backward()
            opt.step()
            running += loss.item()
            steps += 1
            if number == STEPS_PER_EPOCH:
                break
        if epoch % 15 == 0:
            print(f"epoch {epoch} loss {running / STEPS_PER_EPOCH:.5f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
