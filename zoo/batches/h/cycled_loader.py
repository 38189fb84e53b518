"""Step-based training that loops over a lazily generated dataset with itertools.cycle."""
import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(20)

STEPS = 5000


class Spectra(Dataset):
    def __init__(self, n=38400, dim=1024):
        self.n, self.dim = n, dim

    def __len__(self):
        return self.n // 32

    def __getitem__(self, block):
        gen = torch.Generator().manual_seed(block)
        x = torch.randn(32, self.dim, generator=gen)
        return x, x[:, :64].mean(1, keepdim=True)


def main():
    loader = DataLoader(Spectra(), batch_size=None, shuffle=True)
    batches = itertools.cycle(loader)
    model = nn.Sequential(nn.Linear(1024, 448), nn.ReLU(), nn.Linear(448, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        x, y = next(batches)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.5f}", flush=True)


if __name__ == "__main__":
    main()
