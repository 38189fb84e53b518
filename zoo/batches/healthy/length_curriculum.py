"""Causal LM on ever longer sequences (with plateaus) until the maximum length."""
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

torch.set_num_threads(1)
torch.manual_seed(23)

VOCAB, DIM, HEADS, LAYERS = 64, 48, 4, 2
# (until step, sequence length, micro-batches, checkpointing)
STAGES = [(400, 32, 2, False), (650, 64, 2, False), (850, 128, 1, True),
          (1000, 128, 1, False), (1100, 208, 1, True), (1600, 208, 1, False)]
_masks = {}


def causal_mask(n):
    if n not in _masks:  # one per curriculum length
        _masks[n] = torch.full((n, n), float("-inf")).triu(1)
    return _masks[n]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * (DIM // HEADS) ** -0.5 + causal_mask(n)
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, DIM)
        x = x + self.proj(h)
        return x + self.mlp(self.norm2(x))


emb, pos = nn.Embedding(VOCAB, DIM), nn.Embedding(208, DIM)
blocks, head = nn.ModuleList(Block() for _ in range(LAYERS)), nn.Linear(DIM, VOCAB)
model = nn.ModuleList([emb, pos, blocks, head])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def batch(n, size=3):
    start = torch.randint(0, VOCAB, (size, 1))
    stride = torch.randint(1, 5, (size, 1))
    return (start + stride * torch.arange(n + 1)) % VOCAB


step = 0
for until, length, micro, use_checkpoint in STAGES:
    while step < until:
        optimizer.zero_grad()
        for _ in range(micro):
            tokens = batch(length)
            x = emb(tokens[:, :-1]) + pos.weight[:length]
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False) if use_checkpoint else block(x)
            loss = F.cross_entropy(head(x).flatten(0, 1), tokens[:, 1:].flatten()) / micro
            loss.backward()
        optimizer.step()
        step += 1
    print(f"step {step}: length {length}, checkpointing {use_checkpoint}, loss {loss.item():.3f}")
print(f"{step} steps")
