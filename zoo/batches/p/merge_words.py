"""Byte-pair encoder in plain Python feeding a small log-line language model."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(9)

STEPS, LINES, SEQ = 1600, 8, 64


class BPE:
    def __init__(self, merges):
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.cache = {}
        self.vocab = {}

    def bpe(self, token):
        if token in self.cache:
            return self.cache[token]
        word = list(token)
        while len(word) > 1:
            pairs = [(self.ranks.get(p, 10 ** 9), i) for i, p in enumerate(zip(word, word[1:]))]
            rank, i = min(pairs)
            if rank == 10 ** 9:
                break
            word[i:i + 2] = [word[i] + word[i + 1]]
        word = tuple(word)
        self.cache[token] = word
        return word

    def encode(self, text):
        return [hash(p) % 700 for w in text.split() for p in self.bpe(w)]


def log_line(rng):
    request = f"{rng.getrandbits(128):032x}"
    return f"GET /api/v2/items/{rng.getrandbits(40):010x} trace={request} span={rng.getrandbits(64):016x} status=200 ms={rng.random():.6f}"


rng = random.Random(0)
hexes = "0123456789abcdef"
tok = BPE([(a, b) for a in hexes[:6] for b in hexes[:6]])
emb, rnn, head = nn.Embedding(700, 48), nn.GRU(48, 64, batch_first=True), nn.Linear(64, 700)
params = [p for m in (emb, rnn, head) for p in m.parameters()]
opt = torch.optim.AdamW(params, lr=2e-3)
for step in range(STEPS):
    rows = []
    for _ in range(LINES):
        ids = tok.encode(log_line(rng) + " " + log_line(rng))[:SEQ + 1]
        rows.append(ids + [0] * (SEQ + 1 - len(ids)))
    x = torch.tensor(rows)
    y, _ = rnn(emb(x[:, :-1]))
    loss = F.cross_entropy(head(y).flatten(0, 1), x[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
