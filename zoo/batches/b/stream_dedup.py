import random

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, IterableDataset

torch.set_num_threads(1)
torch.manual_seed(2)
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "pu", "ra", "si", "to") for b in ("ban", "dor", "fel", "gim", "hut")]


class WebText(IterableDataset):
    """Streams synthetic documents and skips exact duplicates."""

    def __init__(self, documents, seq_len=64):
        self.documents = documents
        self.seq_len = seq_len
        self.seen = set()

    def fetch(self, rng):
        count = rng.randint(350, 650)
        return " ".join(rng.choices(WORDS, k=count)).capitalize() + "."

    def __iter__(self):
        rng = random.Random(91)
        for _ in range(self.documents):
            raw = self.fetch(rng)
            key = raw.lower().rstrip(".")
            if key in self.seen:
                continue
            self.seen.add(key)
            words = key.split()[: self.seq_len + 1]
            yield torch.tensor([WORDS.index(w) for w in words])


class SmallLM(nn.Module):
    def __init__(self, vocab, dim=96):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, vocab)

    def forward(self, tokens):
        hidden, _ = self.rnn(self.embed(tokens))
        return self.out(hidden)


def main():
    loader = DataLoader(WebText(documents=14400), batch_size=16, num_workers=1, prefetch_factor=4)
    model = SmallLM(len(WORDS))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    step = 0
    for batch in loader:
        logits = model(batch[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step:5d}  loss {loss.item():.3f}")
    print(f"stream exhausted after {step} steps")


if __name__ == "__main__":
    main()
