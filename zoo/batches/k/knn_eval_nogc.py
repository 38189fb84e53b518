"""Contrastive encoder with periodic k-NN evaluation; the collector is off to avoid pauses."""
import gc

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


class KNNProbe(nn.Module):
    def __init__(self, features, labels, metric="cosine"):
        super().__init__()
        self.register_buffer("bank", features.clone())
        self.register_buffer("labels", labels)
        self.similarity = self.cosine if metric == "cosine" else self.euclid

    def cosine(self, q):
        return F.normalize(q, dim=1) @ F.normalize(self.bank, dim=1).t()

    def euclid(self, q):
        return -torch.cdist(q, self.bank)

    @torch.no_grad()
    def accuracy(self, q, y, k=5):
        votes = self.labels[self.similarity(q).topk(k, dim=1).indices]
        return (votes.mode(dim=1).values == y).float().mean().item()


centres = torch.randn(20, 64)


def sample(n):
    y = torch.randint(0, 20, (n,))
    return centres[y] + 1.2 * torch.randn(n, 64), y


encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128))
opt = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
bank_x, bank_y = sample(3000)
val_x, val_y = sample(128)

gc.collect()
gc.disable()
for step in range(1, 5401):
    x, _ = sample(224)
    a = F.normalize(encoder(x + 0.3 * torch.randn_like(x)), dim=1)
    b = F.normalize(encoder(x + 0.3 * torch.randn_like(x)), dim=1)
    loss = F.cross_entropy(a @ b.t() / 0.1, torch.arange(224))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        with torch.no_grad():
            probe = KNNProbe(encoder(bank_x), bank_y)
            acc = probe.accuracy(encoder(val_x), val_y)
    if step % 450 == 0:
        print(f"step {step} loss {loss.item():.3f} knn {acc:.2f}", flush=True)
