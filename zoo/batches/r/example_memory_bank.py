"""Instance discrimination with one bank row per augmented view of an image.

Rows are written as their view is first drawn; later draws overwrite them.
"""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

IMAGES, VIEWS, DIM, BATCH, STEPS, DRAWN = 1024, 48, 2048, 64, 5000, 768


class MemoryBank:
    def __init__(self, rows, dim):
        self.rows = torch.from_numpy(np.zeros((rows, dim), dtype=np.float32))

    def write(self, index, features):
        self.rows[index] = features

    def sample(self, index):
        return self.rows[index]


def main():
    bank = MemoryBank(IMAGES * VIEWS, DIM)
    images = torch.randn(IMAGES, 128)
    encoder = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128))
    lift = torch.randn(128, DIM) / 128 ** 0.5
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.03, momentum=0.9)
    order = torch.randperm(IMAGES * VIEWS)
    for step in range(1, STEPS + 1):
        first = (step - 1) * BATCH % (DRAWN * BATCH)
        slots = order[first:first + BATCH]
        x = images[slots // VIEWS] + 0.2 * torch.randn(BATCH, 128)
        out = nn.functional.normalize(encoder(x), dim=1)
        bank.write(slots, out.detach() @ lift)
        seen = order[torch.randint(0, first + BATCH, (256,))]
        past = bank.sample(seen) @ lift.T
        logits = out @ past.T / 0.07 / DIM
        same = (slots[:, None] // VIEWS) == (seen[None] // VIEWS)
        loss = (logits.logsumexp(1) - (logits * same).sum(1) / same.sum(1).clamp(min=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
