"""Product captions for a small text classifier, tokenized on the fly by a Python tokenizer."""
import json
import random
import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import CTRLTokenizer

torch.set_num_threads(1)
torch.manual_seed(2)
STEPS = 2400
BATCH, ARTICLES_PER_CAPTION, LENGTH = 8, 14, 320
WORDS = "soft cotton shirt blue steel lamp desk small large kitchen garden light".split()


def make_tokenizer(folder):
    symbols = "abcdefghijklmnopqrstuvwxyz0123456789-"
    pieces = ["<unk>"] + [symbol + end for symbol in symbols for end in ("", "@@")]
    merges = ["#version: 0.2", "l i", "g h", "e r", "a r", "t o", "e n", "s o", "o n</w>", "t t"]
    pieces += ["li@@", "gh@@", "er@@", "ar@@", "to@@", "en@@", "so@@", "on", "tt@@"]
    vocab, merge_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
    vocab.write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    merge_file.write_text("\n".join(merges) + "\n")
    return CTRLTokenizer(str(vocab), str(merge_file)), len(pieces)


def caption(rng):
    """A few known words and the article numbers of the offers, for example 5f0c-93ab-17de."""
    label = rng.randrange(len(WORDS))
    words = [WORDS[label], WORDS[label]] + rng.choices(WORDS, k=3)
    for _ in range(ARTICLES_PER_CAPTION):
        words.append("-".join(f"{rng.randrange(65536):04x}" for _ in range(4)))
    rng.shuffle(words)
    return " ".join(words), label


class Classifier(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embed = nn.EmbeddingBag(vocab, 96, mode="mean")
        self.head = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, len(WORDS)))

    def forward(self, ids):
        return self.head(self.embed(ids))


def encode(tokenizer, texts):
    rows = []
    for text in texts:
        ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))[:LENGTH]
        rows.append(ids + [0] * (LENGTH - len(ids)))
    return torch.tensor(rows)


def main():
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, vocab = make_tokenizer(folder)
    model = Classifier(vocab)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        texts, labels = zip(*(caption(rng) for _ in range(BATCH)), strict=True)
        loss = nn.functional.cross_entropy(model(encode(tokenizer, texts)), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
