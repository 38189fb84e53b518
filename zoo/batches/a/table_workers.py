import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(17)
USERS, ITEMS, FACTORS, EPOCHS = 4000, 3000, 16, 14


class Interactions(Dataset):
    """Each worker builds the lookup table of its own when it gets the first index."""

    def __init__(self, size=2600):
        self.size = size
        self.table = None

    def __len__(self):
        return self.size

    def build(self):
        rng = np.random.default_rng(3)
        return rng.random((USERS, ITEMS), dtype=np.float32)

    def __getitem__(self, index):
        if self.table is None:
            self.table = self.build()
        user, item = index % USERS, (index * 7919) % ITEMS
        return user, item, self.table[user, item]


class Factorization(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, FACTORS), nn.Embedding(ITEMS, FACTORS)
        self.tower = nn.Sequential(nn.Linear(2 * FACTORS, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                                   nn.Linear(256, 1))

    def forward(self, user, item):
        return self.tower(torch.cat([self.users(user), self.items(item)], 1)).squeeze(1)


def validate(model, rounds=120):
    model.eval()
    with torch.no_grad():
        scores = [model(torch.randint(0, USERS, (1024,)), torch.randint(0, ITEMS, (1024,))).mean().item()
                  for _ in range(rounds)]
    model.train()
    return sum(scores) / len(scores)


def main():
    model = Factorization()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    loader = DataLoader(Interactions(), batch_size=26, shuffle=True, num_workers=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = 0
    for epoch in range(EPOCHS):
        for user, item, rating in loader:
            loss = nn.functional.mse_loss(model(user, item), rating.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        print("epoch", epoch, f"loss {loss.item():.4f} mean score {validate(model):.3f}", flush=True)
    print("finished", steps, flush=True)


if __name__ == "__main__":
    main()
