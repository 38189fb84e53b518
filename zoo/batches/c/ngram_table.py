import random

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(43)
SYLLABLES = [c + v for c in "bcdfghjklmnprstvz" for v in "aeiou"]


class NgramTable:
    """Gives each trigram of syllables an index at its first sight and counts it."""

    def __init__(self, buckets=8192):
        self.buckets = buckets
        self.index = {}
        self.counts = []

    def lookup(self, gram):
        place = self.index.get(gram)
        if place is None:
            place = self.index[gram] = len(self.counts)
            self.counts.append(0)
        self.counts[place] += 1
        return place % self.buckets


class Speaker:
    def __init__(self, seed=9, lexicon=62):
        self.rng = random.Random(seed)
        self.syllables = self.rng.sample(SYLLABLES, lexicon)

    def utter(self, n):
        return self.rng.choices(self.syllables, k=n)


def encode(table, syllables):
    return [table.lookup("-".join(syllables[i:i + 3])) for i in range(len(syllables) - 2)]


class GramModel(nn.Module):
    def __init__(self, buckets, dim=32):
        super().__init__()
        self.embed = nn.EmbeddingBag(buckets, dim, mode="mean")
        self.net = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, ids):
        return self.net(self.embed(ids)).squeeze(1)


speaker, table = Speaker(), NgramTable()
model = GramModel(table.buckets)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(1, 9001):
    lines = [speaker.utter(18) for _ in range(8)]
    ids = torch.tensor([encode(table, line) for line in lines])
    target = torch.tensor([sum(s[1] == "a" for s in line) / len(line) for line in lines])
    loss = (model(ids) - target).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 900 == 0:
        print(f"{step} loss {loss.item():.5f} known trigrams {len(table.counts)}")
print(f"{step} steps")
