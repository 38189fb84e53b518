"""Tagging with a string store: each new word form gets an entry with its shape and its affixes."""
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(38)
EPOCHS, DOCUMENTS, BATCH, LENGTH = 4, 7200, 12, 40
BUCKETS, TAGS = 4096, 8
CONSONANTS, VOWELS = "bcdfghklmnprstvwz", "aeiou"


def make_corpus():
    """Documents of rare names and numbers: nearly every document brings new word forms."""
    rng = random.Random(11)

    def name():
        return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(3, 6))).capitalize()

    def word():
        return name() if rng.random() < 0.5 else rng.choice(known)

    known = [name() for _ in range(2000)]
    return [" ".join(word() for _ in range(LENGTH)) for _ in range(DOCUMENTS)]


class WordStore:
    """Lexical entries by word form; a form is analysed once."""

    def __init__(self):
        self.entries = {}

    def lookup(self, form):
        entry = self.entries.get(form)
        if entry is None:
            entry = self.entries[form] = self.analyse(form)
        return entry

    def analyse(self, form):
        shape = "".join("X" if letter.isupper() else "x" for letter in form)
        prefix, suffix = form[:3].lower(), form[-3:]
        bucket = (ord(suffix[-1]) * 31 + len(form)) % BUCKETS
        tag = (len(form) + ord(form[0])) % TAGS
        return {"shape": shape, "prefix": prefix, "suffix": suffix, "bucket": bucket, "tag": tag}


def main():
    corpus = make_corpus()
    store = WordStore()
    model = nn.Sequential(nn.Embedding(BUCKETS, 64), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, TAGS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    order, step = random.Random(5), 0
    for _ in range(EPOCHS):
        order.shuffle(corpus)
        for start in range(0, DOCUMENTS, BATCH):
            entries = [[store.lookup(form) for form in text.split()] for text in corpus[start : start + BATCH]]
            buckets = torch.tensor([[entry["bucket"] for entry in row] for row in entries])
            tags = torch.tensor([[entry["tag"] for entry in row] for row in entries])
            loss = nn.functional.cross_entropy(model(buckets).flatten(0, 1), tags.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 200 == 0:
                print(f"step {step} loss {loss.item():.4f} words {len(store.entries)}", flush=True)
            step += 1
    print(f"{step} steps")


if __name__ == "__main__":
    main()
