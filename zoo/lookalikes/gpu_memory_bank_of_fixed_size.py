"""A memory bank of negatives on the GPU has a fixed size: new keys take the place of the oldest."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 128)).cuda()
optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
bank = functional.normalize(torch.randn(65_536, 128, device="cuda"), dim=1)
first = 0
for step in range(2500):
    view = torch.randn(256, 512, device="cuda")
    query = functional.normalize(encoder(view), dim=1)
    key = functional.normalize(encoder(view + 0.1 * torch.randn_like(view)), dim=1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ bank.T], 1) / 0.07
    loss = functional.cross_entropy(logits, torch.zeros(256, dtype=torch.long, device="cuda"))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    bank[first : first + 256] = key.detach()
    first = (first + 256) % len(bank)
print("bank", bank.shape, "loss", loss.item())
