"""Compiled reader whose batches arrive padded to ever new lengths."""
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

warnings.filterwarnings("ignore")
torch._logging.set_logs(dynamo=40)
torch.set_num_threads(1)
torch.manual_seed(11)

STEPS, VOCAB = 3200, 500


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x):
        ctx = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[None, :, None]
        return x + self.down(F.gelu(self.up(self.norm(x + ctx))))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 48)
        self.blocks = nn.ModuleList(Block(48) for _ in range(4))
        self.head = nn.Linear(48, VOCAB)

    def forward(self, ids):
        h = self.emb(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


model = Reader()
fast = torch.compile(model, backend="eager", dynamic=False)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(STEPS):
    length = 24 + (step // 50) % 20
    ids = torch.randint(0, VOCAB, (8, length + 1))
    loss = F.cross_entropy(fast(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 400 == 0:
        print(f"step {step} length {length} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
