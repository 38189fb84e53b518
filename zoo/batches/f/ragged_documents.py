"""Train a bag-of-tokens regressor on ragged documents; remember what was drawn for the sampling report."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(2)
STEPS = 6500
MAX_TOKENS = 6000
PAD = 0


class DocumentStream:
    def __init__(self, vocab=4000, seed=0):
        self.rng = np.random.default_rng(seed)
        self.vocab = vocab
        self.drawn = []

    def read(self):
        tokens = np.full(MAX_TOKENS, PAD, dtype=np.int32)
        weights = np.full(MAX_TOKENS, 1.0, dtype=np.float32)
        count = int(self.rng.integers(120, 400))
        tokens[:count] = self.rng.integers(1, self.vocab, size=count)
        weights[:count] = self.rng.random(count, dtype=np.float32)
        tokens.resize(count, refcheck=False)
        weights.resize(count, refcheck=False)
        self.drawn.append((tokens, weights))
        return tokens, weights


class BagModel(nn.Module):
    def __init__(self, vocab, dim=64):
        super().__init__()
        self.bag = nn.EmbeddingBag(vocab, dim, mode="sum")
        hidden = [m for _ in range(8) for m in (nn.Linear(224, 224), nn.ReLU())]
        self.mlp = nn.Sequential(nn.Linear(dim, 224), nn.ReLU(), *hidden, nn.Linear(224, 1))

    def forward(self, tokens, weights):
        return self.mlp(self.bag(tokens.unsqueeze(0), per_sample_weights=weights.unsqueeze(0)))


def main():
    stream = DocumentStream()
    model = BagModel(stream.vocab)
    opt = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(STEPS):
        tokens, weights = stream.read()
        target = float(weights[tokens % 7 == 0].sum()) / len(tokens)
        pred = model(torch.from_numpy(tokens).long(), torch.from_numpy(weights))
        loss = (pred - target).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    lengths = [len(t) for t, _ in stream.drawn]
    print(f"mean length {np.mean(lengths):.1f} longest {max(lengths)}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
