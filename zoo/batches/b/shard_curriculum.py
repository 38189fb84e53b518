import os
import tempfile

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(3)
SHARD_TOKENS, WINDOW, VOCAB = 480_000, 48, 200


class ShardedCorpus:
    """Writes a harder shard for every epoch and reads windows from the shards through mmap."""

    def __init__(self, root, seed=17):
        self.root = root
        self.rng = np.random.default_rng(seed)
        self.shards = []

    def open_epoch(self, epoch):
        path = os.path.join(self.root, f"shard_{epoch:03d}.bin")
        spread = min(VOCAB, 20 + 5 * epoch)
        tokens = self.rng.integers(0, spread, SHARD_TOKENS, dtype=np.int32)
        tokens.tofile(path)
        shard = np.memmap(path, dtype=np.int32, mode="r")
        self.shards.append(shard)
        return int(shard.max())

    def batches(self, size):
        shard = self.shards[-1]
        windows = shard[: len(shard) // WINDOW * WINDOW].reshape(-1, WINDOW)
        order = self.rng.permutation(len(windows))[: size * 60]
        for start in range(0, len(order), size):
            picked = windows[np.sort(order[start:start + size])]
            yield torch.from_numpy(picked.astype(np.int64))


class NextToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 48)
        self.mix = nn.Conv1d(48, 96, 4, padding=3)
        self.out = nn.Linear(96, VOCAB)

    def forward(self, x):
        h = self.mix(self.embed(x).transpose(1, 2))[..., : x.shape[1]]
        return self.out(torch.relu(h).transpose(1, 2))


with tempfile.TemporaryDirectory() as root:
    corpus, model = ShardedCorpus(root), NextToken()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    steps = 0
    for epoch in range(36):
        top = corpus.open_epoch(epoch)
        for tokens in corpus.batches(32):
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        print(f"epoch {epoch} largest token {top} loss {loss.item():.3f}")
    print(f"done, {steps} steps")
