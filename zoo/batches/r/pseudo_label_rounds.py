"""Self-training: each round builds a new pseudo-labelled set and trains on it.

The set reseeds its augmentation noise in forked workers, so that two workers
do not draw the same noise.
"""
import os

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, CLASSES, POOL = 192, 8, 12_000
ROUNDS, STEPS_PER_ROUND, BATCH = 45, 128, 64


class PseudoLabelled(Dataset):
    def __init__(self, features, labels, seed):
        self.features = features
        self.labels = labels
        self.rng = np.random.default_rng(seed)
        os.register_at_fork(after_in_child=self.reseed)

    def reseed(self):
        self.rng = np.random.default_rng(os.getpid())

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        noise = self.rng.standard_normal(DIM, dtype=np.float32)
        return self.features[i] + 0.1 * noise, self.labels[i]


def label_pool(model, pool):
    with torch.no_grad():
        probability = torch.cat([model(part).softmax(dim=1) for part in torch.from_numpy(pool).split(500)])
    confidence, guess = probability.max(dim=1)
    best = confidence.topk(POOL * 2 // 3).indices.numpy()
    return pool[best], guess.numpy()[best], best


def main():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((CLASSES, DIM)).astype(np.float32)
    truth = rng.integers(0, CLASSES, POOL)
    pool = centers[truth] + 1.5 * rng.standard_normal((POOL, DIM)).astype(np.float32)

    model = nn.Sequential(nn.Linear(DIM, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    features, labels = pool[:2000], truth[:2000]
    step = 0
    for round_ in range(ROUNDS):
        data = PseudoLabelled(features, labels, seed=round_)
        loader = DataLoader(data, batch_size=BATCH, shuffle=True)
        taken = 0
        while taken < STEPS_PER_ROUND:
            for x, y in loader:
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                taken += 1
                if taken == STEPS_PER_ROUND:
                    break
        features, labels, best = label_pool(model, pool)
        agree = (labels == truth[best]).mean()
        print(f"step {step} round {round_} loss {loss.item():.3f} agreement {agree:.3f}", flush=True)


if __name__ == "__main__":
    main()
