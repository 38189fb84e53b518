"""Sequence model with beam-search trees grown beside training, the latest ones kept for a look."""
from collections import deque

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(18)

STEPS, BEAMS, DEPTH, VOCAB = 3000, 8, 7, 256


class Node:
    def __init__(self, parent, token, score, state):
        self.parent, self.token, self.score, self.state = parent, token, score, state
        self.children = []
        if parent is not None:
            parent.children.append(self)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 64)
        self.cell = nn.GRUCell(64, 64)
        self.head = nn.Linear(64, VOCAB)

    def forward(self, ids):
        h = torch.zeros(len(ids), 64)
        outs = []
        for t in range(ids.shape[1]):
            h = self.cell(self.emb(ids[:, t]), h)
            outs.append(self.head(h))
        return torch.stack(outs, 1)


@torch.no_grad()
def grow(model):
    root = Node(None, 0, 0.0, torch.zeros(1, 64))
    front = [root]
    for _ in range(DEPTH):
        states = torch.cat([n.state for n in front])
        h = model.cell(model.emb(torch.tensor([n.token for n in front])), states)
        top = model.head(h).log_softmax(-1).topk(BEAMS)
        new = []
        for i, n in enumerate(front):
            for s, k in zip(top.values[i].tolist(), top.indices[i].tolist()):
                new.append(Node(n, k, n.score + s, h[i:i + 1].clone()))
        front = sorted(new, key=lambda n: -n.score)[:BEAMS]
    return root


model = Tagger()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
recent = deque(maxlen=60)
for step in range(STEPS):
    ids = torch.randint(0, VOCAB, (16, 11))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    recent.append(grow(model))
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f} root children {len(recent[-1].children)}", flush=True)
print(f"finished {STEPS} steps")
