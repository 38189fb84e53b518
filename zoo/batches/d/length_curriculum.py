"""Sequence tagging with a curriculum: sequences get longer until the full length is reached."""
import torch
from torch import nn

FULL, SHORT, WIDE = 112, 16, 48


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(64, WIDE)
        self.where = nn.Parameter(0.02 * torch.randn(FULL, WIDE))
        self.query, self.key, self.value = (nn.Linear(WIDE, WIDE) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(WIDE, 2 * WIDE), nn.GELU(), nn.Linear(2 * WIDE, 8))

    def forward(self, tokens):
        size, length = tokens.shape
        x = self.embed(tokens) + self.where[:length]
        q, k, v = (f(x).view(size, length, 4, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        weight = (q @ k.transpose(2, 3) / q.size(-1) ** 0.5).softmax(3)
        return self.head(x + (weight @ v).transpose(1, 2).reshape(size, length, WIDE))


class Curriculum:
    def __init__(self, total, reached):
        self.until, self.gen = int(total * reached), torch.Generator().manual_seed(19)

    def length(self, step):
        return min(FULL, SHORT + (FULL - SHORT) * step // self.until)

    def batch(self, step, size=24):
        tokens = torch.randint(0, 64, (size, self.length(step)), generator=self.gen)
        return tokens, (tokens + tokens.roll(1, 1)) % 8


def train(total):
    model, curriculum = Tagger(), Curriculum(total, reached=0.4)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(total):
        tokens, tags = curriculum.batch(step)
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tags.flatten())
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if step % 170 == 0:
            print(f"{step}: length {tokens.size(1)}, loss {loss.item():.3f}")
    return total


torch.set_num_threads(1)
torch.manual_seed(19)
print(train(850), "steps")
