"""Fine-tuning on frozen-encoder features; features are computed once per document and shelved on disk."""
import os
import shelve
import shutil
import tempfile

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, CHUNKS, WIDTH = 3400, 48, 192


class FeatureStore:
    """Disk-backed so that the features of a large corpus need not fit in memory."""

    def __init__(self, folder, encoder):
        self.encoder = encoder
        self.shelf = shelve.open(os.path.join(folder, "features"), writeback=True)

    def get(self, doc_id, tokens):
        key = f"doc-{doc_id}"
        if key not in self.shelf:
            with torch.no_grad():
                features = self.encoder(tokens).numpy()
            self.shelf[key] = features
        return torch.from_numpy(self.shelf[key])


def main():
    folder = tempfile.mkdtemp(prefix="features-")
    encoder = nn.Sequential(nn.EmbeddingBag(5000, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    store = FeatureStore(folder, encoder)
    head = nn.Sequential(nn.Linear(WIDTH, 768), nn.GELU(), nn.Linear(768, 512), nn.GELU(), nn.Linear(512, 10))
    opt = torch.optim.AdamW(head.parameters(), lr=3e-4)
    for step in range(1, STEPS + 1):
        tokens = torch.randint(0, 5000, (CHUNKS, 32))
        x = store.get(step, tokens)
        y = x[:, :10].argmax(1)
        loss = nn.functional.cross_entropy(head(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    store.shelf.close()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
