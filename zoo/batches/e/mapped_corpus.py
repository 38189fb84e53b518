"""Next-token model on a memory-mapped corpus read in random order."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)
DOCS, DOC_TOKENS, VOCAB, EPOCHS, SEQ, CROPS = 2200, 32_768, 512, 2, 20, 8


def build_corpus(path):
    rng = np.random.default_rng(6)
    base = rng.integers(0, VOCAB, DOC_TOKENS)
    with open(path, "wb") as out:
        for doc in range(DOCS):
            ((base * (1 + doc % 7) + doc) % VOCAB).astype(np.uint16).tofile(out)


class MappedCorpus:
    def __init__(self, path):
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r", shape=(DOCS, DOC_TOKENS))
        self.rng = np.random.default_rng(60)

    def epoch(self):
        for doc in self.rng.permutation(DOCS):
            starts = self.rng.integers(0, DOC_TOKENS - SEQ - 1, CROPS)
            window = self.tokens[doc][starts[:, None] + np.arange(SEQ + 1)]
            yield torch.from_numpy(window.astype(np.int64))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 64)
        self.rnn = nn.GRU(64, 64, batch_first=True)
        self.out = nn.Linear(64, VOCAB)

    def forward(self, tokens):
        return self.out(self.rnn(self.embed(tokens))[0])


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "corpus.bin")
    build_corpus(path)
    corpus, model = MappedCorpus(path), Recurrent()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = 0
    for epoch in range(EPOCHS):
        for batch in corpus.epoch():
            loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps % 550 == 0:
                print(f"epoch {epoch} step {steps} loss {loss.item():.4f}")
print(f"{steps} steps")
