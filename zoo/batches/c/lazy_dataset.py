import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(46)


class Molecules(Dataset):
    """Random point clouds as pairwise-distance features, made on demand."""

    def __init__(self, count=1400, atoms=32, centres=16):
        self.count, self.atoms = count, atoms
        self.centres = torch.linspace(0.2, 5.0, centres)
        self.ready = [None] * count

    def __len__(self):
        return self.count

    def make(self, index):
        generator = torch.Generator().manual_seed(index)
        points = torch.randn(self.atoms, 3, generator=generator)
        distances = torch.cdist(points, points)
        smooth = torch.exp(-4 * (distances[..., None] - self.centres) ** 2)
        energy = (1 / (distances + 1)).sum() / self.atoms
        return smooth, energy

    def __getitem__(self, index):
        if self.ready[index] is None:
            self.ready[index] = self.make(index)
        return self.ready[index]


class PairNet(nn.Module):
    def __init__(self, centres=16, hidden=24):
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(centres, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.node = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, pairs):
        return self.node(self.edge(pairs).mean(2)).mean((1, 2))


dataset = Molecules()
loader = DataLoader(dataset, batch_size=14, shuffle=True)
model = PairNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
steps = 0
for epoch in range(17):
    limit = 40 if epoch < 4 else len(loader)
    running = 0.0
    for i, (pairs, energy) in enumerate(loader):
        if i >= limit:
            break
        loss = (model(pairs) - energy).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
        steps += 1
    print(f"epoch {epoch} loss {running / limit:.4f}")
print(f"{steps} steps")
