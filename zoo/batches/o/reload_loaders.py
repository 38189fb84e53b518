"""Crop size schedule: the data loader is rebuilt at the start of every epoch."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(4)

EPOCHS = 14
BATCHES = 90


class Crops(Dataset):
    def __init__(self, size, n):
        self.size = size
        self.n = n
        self.canvas = None

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if self.canvas is None:
            g = torch.Generator().manual_seed(7)
            self.canvas = torch.randn(1350, 1350, generator=g)
        g = torch.Generator().manual_seed(i)
        y, x = torch.randint(0, 1350 - self.size, (2,), generator=g).tolist()
        crop = self.canvas[y:y + self.size, x:x + self.size]
        return crop[None].clone(), crop.mean() + crop.std()


class Trainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.loaders = {}

    def train_dataloader(self, epoch):
        size = 24 + 2 * (epoch % 8)
        loader = DataLoader(Crops(size, BATCHES * 16), batch_size=16, num_workers=1, persistent_workers=True)
        self.loaders[f"train/{epoch}"] = loader
        return loader

    def fit(self):
        for epoch in range(EPOCHS):
            total = 0.0
            for x, y in self.train_dataloader(epoch):
                loss = nn.functional.mse_loss(self.model(x)[:, 0], y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.item()
            print(f"epoch {epoch} loss {total / BATCHES:.4f}", flush=True)


if __name__ == "__main__":
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(384, 1),
    )
    Trainer(net).fit()
