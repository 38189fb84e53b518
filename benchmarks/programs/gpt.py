"""A GPT on the characters of Python's own library, as a plain loop: warm-up, evaluation, checkpoints."""

import json
import math
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from stopwatch import Stopwatch

STEPS, BATCH, BLOCK, WIDTH, HEADS, LAYERS = 800, 8, 64, 96, 4, 3


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (
            part.view(B, T, HEADS, C // HEADS).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The whole model."""

    def __init__(self, vocab):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.h = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab, bias=False)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        logits = self.lm_head(self.ln_f(self.h(x)))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def get_batch(split):
    """Sequences drawn at random."""
    ix = torch.randint(len(split) - BLOCK - 1, (BATCH,))
    x = torch.stack([split[i : i + BLOCK] for i in ix])
    y = torch.stack([split[i + 1 : i + 1 + BLOCK] for i in ix])
    return x, y


@torch.no_grad()
def estimate_loss(model):
    """Mean loss over twenty batches of each part."""
    model.eval()
    out = [torch.stack([model(*get_batch(split)) for _ in range(20)]).mean().item() for split in (train, val)]
    model.train()
    return out


def get_lr(it):
    """Warm-up, then a cosine."""
    if it < 50:
        return 1e-3 * (it + 1) / 51
    return 1e-4 + 0.45e-3 * (1.0 + math.cos(math.pi * (it - 50) / (STEPS - 50)))


torch.manual_seed(1337)
text = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("[a-d]*.py")))
stoi = {character: number for number, character in enumerate(sorted(set(text)))}
data = torch.tensor([stoi[character] for character in text], dtype=torch.long)
train, val = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
model = GPT(len(stoi))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
watch, losses, best = Stopwatch(), [], 1e9
for it in range(STEPS):
    for group in optimizer.param_groups:
        group["lr"] = get_lr(it)
    if it % 100 == 0:
        losses += estimate_loss(model)
        if losses[-1] < best:
            best = losses[-1]
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "it": it}, "ckpt.pt")
    loss = model(*get_batch(train))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    watch.step()
watch.write()
print("LOSSES", json.dumps(losses))
