"""Encoder training; short-lived probe modules refer to themselves and go at the epoch's end."""
import gc

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


class PrototypeProbe(nn.Module):
    def __init__(self, features, temperature=0.1):
        super().__init__()
        self.register_buffer("bank", F.normalize(features, dim=1))
        self.temperature = temperature
        self.score = self.soft_score   # swapped for hard_score in ablations

    def soft_score(self, q):
        return (q @ self.bank.t() / self.temperature).softmax(1)

    def entropy(self, q):
        p = self.score(F.normalize(q, dim=1))
        return -(p * p.clamp_min(1e-9).log()).sum(1).mean().item()


encoder = nn.Sequential(nn.Linear(96, 256), nn.GELU(), nn.Linear(256, 192))
decoder = nn.Linear(192, 96)
opt = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
mix = torch.randn(12, 96)
bank_x = torch.randn(2000, 12) @ mix
for epoch in range(18):
    for step in range(220):
        x = torch.randn(256, 12) @ mix + 0.1 * torch.randn(256, 96)
        loss = F.mse_loss(decoder(F.dropout(encoder(x), 0.1)), x)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 8 == 0:
            with torch.no_grad():
                probe = PrototypeProbe(encoder(bank_x))
                ent = probe.entropy(encoder(x))
    gc.collect()
    print(f"epoch {epoch} loss {loss.item():.3f} entropy {ent:.2f}", flush=True)
