"""A stream passes through generators that shuffle in a buffer and pack; their local variables are the state."""

import random

import torch
from torch import nn

import holdwater

torch.manual_seed(9)


def documents(seed):
    """An endless stream of short documents."""
    rng = random.Random(seed)
    while True:
        first = rng.randrange(11)
        yield [(first + stride * 3) % 11 for stride in range(rng.randrange(4, 12))]


def shuffled(stream, size, seed):
    """Give out a random element of a buffer, and put the next one in its place."""
    rng = random.Random(seed)
    buffer = [next(stream) for _ in range(size)]
    for document in stream:
        place = rng.randrange(size)
        yield buffer[place]
        buffer[place] = document


def packed(stream, length, batch_size):
    """Rows of a fixed length, cut from documents laid end to end; the rest is kept for the next."""
    rest = []
    while True:
        while len(rest) < (length + 1) * batch_size:
            rest += [*next(stream), 11]
        rows, rest = rest[: (length + 1) * batch_size], rest[(length + 1) * batch_size :]
        yield torch.tensor(rows).view(batch_size, length + 1)


class Bigrams(nn.Module):
    """Predict the next token from this one and the one before."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.mix = nn.Linear(16, 12)

    def forward(self, tokens):
        hidden = self.embed(tokens)
        return self.mix(torch.cat([hidden, hidden.roll(1, 1)], 2))


model = Bigrams()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

batches = packed(shuffled(documents(1), size=32, seed=2), length=7, batch_size=4)
for _ in holdwater.steps(40):
    rows = next(batches)
    loss = nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
