"""Contrastive training with hard negatives looked up in embedding shards written to disk."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)
STEPS = 2000
MINE_EVERY = 20


class ShardIndex:
    def __init__(self, root):
        self.root = root
        self.shards = []

    def add(self, embeddings):
        path = os.path.join(self.root, f"shard_{len(self.shards):05d}.npy")
        np.save(path, embeddings)
        shard = np.load(path, mmap_mode="r")
        self.shards.append(shard)

    def hardest(self, queries, k=4):
        found = []
        for shard in self.shards[-2:]:
            scores = queries @ shard.T
            top = np.argpartition(-scores, k, axis=1)[:, :k]
            found.append(np.asarray(shard)[top])
        return np.concatenate(found, axis=1)


def encoder():
    return nn.Sequential(nn.Linear(80, 256), nn.ReLU(), nn.Linear(256, 64))


def main():
    rng = np.random.default_rng(1)
    corpus = torch.from_numpy(rng.standard_normal((2048, 80), dtype=np.float32))
    model = encoder()
    opt = torch.optim.AdamW(model.parameters(), lr=5e-4)
    with tempfile.TemporaryDirectory() as root:
        index = ShardIndex(root)
        for step in range(STEPS):
            if step % MINE_EVERY == 0:
                with torch.no_grad():
                    index.add(nn.functional.normalize(model(corpus), dim=-1).numpy())
            rows = torch.from_numpy(rng.integers(0, len(corpus), size=48))
            anchor = nn.functional.normalize(model(corpus[rows]), dim=-1)
            positive = nn.functional.normalize(model(corpus[rows] + 0.1 * torch.randn(48, 80)), dim=-1)
            if step % 5 == 0:
                negatives = torch.from_numpy(index.hardest(anchor.detach().numpy()))
            pos = (anchor * positive).sum(-1, keepdim=True)
            neg = torch.einsum("bd,bkd->bk", anchor, negatives)
            loss = nn.functional.cross_entropy(torch.cat([pos, neg], 1) / 0.07, torch.zeros(48, dtype=torch.long))
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 500 == 0:
                print(f"step {step} loss {loss.item():.4f}")
        print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
