"""Acoustic model trained on short utterances first; the limit is raised until all are in."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(12)

STEPS = 1500
RAMP = 800


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(40, 96)
        self.attn = nn.TransformerEncoderLayer(96, 4, 192, batch_first=True, dropout=0.0)
        self.out = nn.Linear(96, 30)

    def forward(self, x):
        return self.out(self.attn(self.inp(x)))


phones = torch.randn(30, 40)
model = Encoder()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(STEPS):
    limit = 24 + int(232 * min(1.0, step / RAMP))
    y = torch.randint(0, 30, (8, limit // 4)).repeat_interleave(4, 1)
    x = phones[y] + torch.randn(*y.shape, 40)
    logits = model(x)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 100 == 0:
        print(f"step {step} frames {y.shape[1]} loss {loss.item():.3f}", flush=True)
