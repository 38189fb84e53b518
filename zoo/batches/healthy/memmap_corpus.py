"""Small language model trained on a memory-mapped token file, read in order."""
import os
import tempfile
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(6)

VOCAB, CONTEXT = 4000, 8
CHUNK = 20_480           # tokens looked at per step
CHUNKS_IN_CORPUS = 2200  # about 90 MB as uint16
STEPS = 3400


def write_corpus(path):
    rng = np.random.default_rng(6)
    with open(path, "wb") as f:
        for _ in range(CHUNKS_IN_CORPUS):
            tokens = (rng.random(CHUNK, dtype=np.float32) ** 3 * VOCAB).astype(np.uint16)
            f.write(tokens.tobytes())


class WindowLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 32)
        self.mlp = nn.Sequential(nn.Linear(32 * CONTEXT, 128), nn.GELU(), nn.Linear(128, VOCAB))

    def forward(self, x):
        return self.mlp(self.emb(x).flatten(1))


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "corpus.bin")
    write_corpus(path)
    corpus = np.memmap(path, dtype=np.uint16, mode="r")
    unigram = np.ones(VOCAB)
    model = WindowLM()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        begin = (step - 1) % CHUNKS_IN_CORPUS * CHUNK
        chunk = corpus[begin:begin + CHUNK]
        # running unigram statistics over the whole chunk, for the bias
        unigram = 0.99 * unigram + np.bincount(chunk, minlength=VOCAB)
        # a few windows of it are trained on
        starts = np.arange(40) * (CHUNK // 40)
        windows = np.stack([chunk[s:s + CONTEXT + 1] for s in starts]).astype(np.int64)
        batch = torch.from_numpy(windows)
        prior = torch.from_numpy(np.log(unigram / unigram.sum())).float()
        logits = model(batch[:, :-1]) + prior
        loss = F.cross_entropy(logits, batch[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 400 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    del corpus, chunk
print(f"{STEPS} steps")
