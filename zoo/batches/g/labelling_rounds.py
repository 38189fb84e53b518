"""Active learning on a data set: rounds select rows to label until the labelling budget is spent."""
import datasets
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(25)
datasets.disable_progress_bars()
STEPS = 3600
ROWS, FEATURES, CLASSES = 120_000, 16, 4
ROUNDS, STEPS_PER_ROUND, ROWS_PER_ROUND = 48, 36, 600


def make_pool():
    rng = np.random.default_rng(3)
    features = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    labels = (features @ rng.standard_normal((FEATURES, CLASSES))).argmax(1)
    columns = {"features": list(features), "label": labels}
    return datasets.Dataset.from_dict(columns).with_format("torch")


class Acquisition:
    """The rows still without label, and the snapshot of the pool that each round chose from."""

    def __init__(self, pool):
        self.source = pool
        self.open_rows = np.arange(len(pool))
        self.rounds = []
        self.rng = np.random.default_rng(4)

    def acquire(self):
        candidates = self.source.select(self.rng.permutation(self.open_rows), keep_in_memory=True)
        chosen = candidates.select(range(ROWS_PER_ROUND))
        taken = np.asarray(candidates._indices.column(0))[:ROWS_PER_ROUND]
        self.open_rows = np.setdiff1d(self.open_rows, taken)
        self.rounds.append((candidates, chosen))

    def batch(self, size):
        """Rows of a random earlier round, which the curriculum revisits."""
        _, chosen = self.rounds[self.rng.integers(len(self.rounds))]
        return chosen[self.rng.integers(0, ROWS_PER_ROUND, size)]


def main():
    acquisition = Acquisition(make_pool())
    layers = [nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        if step % STEPS_PER_ROUND == 0 and len(acquisition.rounds) < ROUNDS:
            acquisition.acquire()
        rows = acquisition.batch(32)
        loss = nn.functional.cross_entropy(model(rows["features"]), rows["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} rounds {len(acquisition.rounds)}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
