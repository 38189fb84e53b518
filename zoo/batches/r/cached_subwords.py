"""Train a bag-of-subwords classifier on text with a long tail of words."""
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS, BATCH, WORDS, TAIL = 3000, 16, 12, 150_000
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def build_tokenizer():
    vocab = {letter: i for i, letter in enumerate(LETTERS)}
    merges = []
    for left in "bcdfghklmnprst":
        for right in "aeiou":
            merges.append((left, right))
            vocab[left + right] = len(vocab)
    model = models.BPE(vocab=vocab, merges=merges, cache_capacity=80_000)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def word(number, rng_state=np.random.default_rng(0).integers(0, 26, (TAIL, 48))):
    return "".join(LETTERS[k] for k in rng_state[number])


def main():
    rng = np.random.default_rng(1)
    tokenizer = build_tokenizer()
    size = tokenizer.get_vocab_size()
    model = nn.Sequential(nn.EmbeddingBag(size, 128), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        labels = rng.integers(0, 4, BATCH)
        numbers = rng.integers(0, TAIL // 4, (BATCH, WORDS)) * 4 + labels[:, None]
        ids, offsets = [], []
        for row in numbers:
            offsets.append(len(ids))
            ids += tokenizer.encode(" ".join(word(n) for n in row)).ids
        scores = model[0](torch.tensor(ids), torch.tensor(offsets))
        loss = nn.functional.cross_entropy(model[1:](scores), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
