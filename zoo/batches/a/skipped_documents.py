import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)
STEPS, SHARD = 3600, 50


class BadDocument(ValueError):
    pass


def featurize(rng, corrupt, docs=24, length=96, width=32):
    lengths = rng.integers(10, length + (40 if corrupt else 1), size=docs)
    features = rng.standard_normal((docs, length, width), dtype=np.float32)
    for row, n in enumerate(lengths):
        if n > length + 36:
            raise BadDocument(f"document {row} has {n} tokens, at most {length} fit")
        features[row, n:] = 0.0
    return features, lengths


class Corpus:
    """Two sources; the second one joins when the first has been seen enough."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def batch(self, step):
        shard = step // SHARD
        noisy_source = step > 1100 and shard % 4 == 3
        features, lengths = featurize(self.rng, corrupt=noisy_source)
        return torch.from_numpy(features), torch.from_numpy(lengths)


class Trainer:
    def __init__(self):
        self.model = nn.GRU(32, 24, batch_first=True)
        self.head = nn.Linear(24, 1)
        self.optimizer = torch.optim.Adam([*self.model.parameters(), *self.head.parameters()], lr=1e-3)
        self.skipped = []

    def step(self, corpus, step):
        try:
            features, lengths = corpus.batch(step)
        except BadDocument as error:
            self.skipped.append(error)
            return None
        hidden, _ = self.model(features[:, ::6])
        loss = (self.head(hidden[:, -1]).squeeze(1) - lengths.float() / 96).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main():
    trainer, corpus = Trainer(), Corpus()
    print("parameters", sum(p.numel() for p in trainer.model.parameters()), flush=True)
    for step in range(1, STEPS + 1):
        loss = trainer.step(corpus, step)
        if step % 500 == 0:
            print(step, loss, "skipped", len(trainer.skipped), flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
