"""Sequence model with a length curriculum; relative position features are kept by length."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(10)

STEPS = 3200
SHORTEST, LONGEST = 16, 192
tables = {}


def relative_features(length):
    if length not in tables:
        at = torch.arange(length, dtype=torch.float32)
        offset = at[None, :, None] - at[:, None, None]
        tables[length] = torch.cos(offset / torch.logspace(0, 3, 24))
    return tables[length]


class RelAttention(nn.Module):
    def __init__(self, vocab=64, dim=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.qk = nn.Linear(dim, 2 * dim)
        self.v = nn.Linear(dim, dim)
        self.bias = nn.Linear(24, 1)
        self.out = nn.Linear(dim, vocab)

    def forward(self, ids):
        h = self.embed(ids)
        q, k = self.qk(h).chunk(2, dim=-1)
        scores = q @ k.transpose(1, 2) / 6 + self.bias(relative_features(ids.shape[1])).squeeze(-1)
        return self.out(h + scores.softmax(-1) @ self.v(h))


model = RelAttention()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for step in range(1, STEPS + 1):
    limit = SHORTEST + int((LONGEST - SHORTEST) * min(1.0, step / (0.4 * STEPS)))
    length = limit if step % 2 else int(torch.randint(SHORTEST, limit + 1, ()))
    ids = (torch.randint(0, 64, (7, 1)) + torch.arange(length + 1)) % 64
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 320 == 0:
        print(f"step {step} up to {limit} loss {loss.item():.4f}", flush=True)
