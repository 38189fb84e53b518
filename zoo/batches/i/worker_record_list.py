"""Train on a long list of Python records with one loader worker."""
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(1)

EPOCHS = 4


class Records(Dataset):
    def __init__(self, n=160_000):
        self.records = [{"f": [random.gauss(0, 1) for _ in range(32)], "y": random.random()} for _ in range(n)]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        record = self.records[i]
        return torch.tensor(record["f"]), record["y"]


def main():
    loader = DataLoader(Records(), batch_size=256, num_workers=1, persistent_workers=True)
    model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(EPOCHS):
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x).squeeze(1), y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 25 == 0:
                print(f"step {step} epoch {epoch} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
