"""Few-shot training: each task gets its own temporary head module."""
import gc

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 4400
GC_EVERY = 800


class TaskHead(nn.Module):
    def __init__(self, prototypes, mode):
        super().__init__()
        self.register_buffer("prototypes", prototypes)
        self.score = self.cosine if mode == "cosine" else self.euclid

    def cosine(self, h):
        return 8 * nn.functional.normalize(h, dim=1) @ nn.functional.normalize(self.prototypes, dim=1).T

    def euclid(self, h):
        return -torch.cdist(h, self.prototypes)

    def forward(self, h):
        return self.score(h)


def main():
    gc.disable()  # collect at fixed steps, to avoid stalls
    encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 512))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        centers = torch.randn(100, 64)
        with torch.no_grad():
            prototypes = encoder(centers)
        head = TaskHead(prototypes, "cosine" if step % 2 else "euclid")
        y = torch.randint(0, 100, (128,))
        x = centers[y] + 0.2 * torch.randn(128, 64)
        loss = nn.functional.cross_entropy(head(encoder(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % GC_EVERY == 0:
            gc.collect()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
