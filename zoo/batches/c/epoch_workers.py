import time

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(45)


class StoreForecast(Dataset):
    """Windows of synthetic sales; the series of a store is built when it is first needed."""

    def __init__(self, stores=140, days=36_000, window=56):
        self.stores, self.days, self.window = stores, days, window
        self.series = {}

    def __len__(self):
        return 640

    def load(self, store):
        if store not in self.series:
            rng = np.random.default_rng(store)
            season = np.sin(np.arange(self.days) * 2 * np.pi / 7 + rng.uniform(0, 6))
            self.series[store] = season + np.cumsum(rng.normal(0, 0.01, self.days)) + rng.normal(0, 0.1, self.days)
        return self.series[store]

    def __getitem__(self, index):
        rng = np.random.default_rng()
        series = self.load(int(rng.integers(self.stores)))
        start = int(rng.integers(self.days - self.window - 1))
        piece = series[start:start + self.window + 1].astype(np.float32)
        return piece[:-1], piece[-1]


def main():
    loader = DataLoader(StoreForecast(), batch_size=16, num_workers=2, shuffle=True)
    model = nn.Sequential(nn.Linear(56, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(14):
        total = 0.0
        for window, following in loader:
            loss = nn.functional.huber_loss(model(window).squeeze(1), following)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            steps += 1
            time.sleep(0.008)
        print(f"epoch {epoch} loss {total / len(loader):.5f}")
        time.sleep(0.4)
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
