import functools

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(25)
BUCKETS, VOCAB = 32, 90


@functools.cache
def relative_buckets(queries, keys):
    distance = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]
    near = distance.abs() < BUCKETS // 4
    far = BUCKETS // 4 + (distance.abs().clamp(min=1).float().log() * 2).long()
    bucket = torch.where(near, distance.abs(), far.clamp(max=BUCKETS // 2 - 1))
    return bucket + (distance > 0) * (BUCKETS // 2)


class CrossAttention(nn.Module):
    def __init__(self, dim=48, heads=4):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.bias = nn.Embedding(BUCKETS, heads)
        self.heads = heads

    def forward(self, x, memory):
        b, n, d = x.shape
        m = memory.shape[1]
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv(memory).view(b, m, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) + self.bias(relative_buckets(n, m)).permute(2, 0, 1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d))


class Translator(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.source, self.target = nn.Embedding(VOCAB, dim), nn.Embedding(VOCAB, dim)
        self.cross = CrossAttention(dim)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, VOCAB))

    def forward(self, src, tgt):
        x = self.target(tgt)
        return self.head(x + self.cross(x, self.source(src)))


def sentence_pair(batch=6):
    length = int(torch.randint(60, 300, ()))
    stretch = int(torch.randint(-30, 60, ()))
    src = torch.randint(0, VOCAB, (batch, length))
    tgt = torch.nn.functional.pad(src, (0, stretch), value=0) if stretch > 0 else src[:, :stretch or None]
    return src, tgt


model = Translator()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1, 521):
    src, tgt = sentence_pair()
    logits = model(src, tgt[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 65 == 0:
        print(f"{step}: {tuple(src.shape)} -> {tuple(tgt.shape)} loss {loss.item():.3f}")
print(f"finished {step} steps")
