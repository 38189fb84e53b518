"""A batch sampler prefers difficult samples; all its state is registered, and it continues inside an epoch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

import holdwater

torch.manual_seed(13)


class Points(Dataset):
    """Points of a curve, with their number."""

    def __init__(self, count):
        self.x = torch.rand(count, 1) * 6
        self.y = self.x.sin() + 0.1 * torch.randn(count, 1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return index, self.x[index], self.y[index]


class DifficultFirst(Sampler):
    """Draws batches in proportion to the losses of the samples; an epoch has a fixed number of batches."""

    def __init__(self, count, batch_size, batches, seed):
        self.batch_size, self.batches = batch_size, batches
        self.difficulty = torch.ones(count)
        self.position = 0
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return self.batches

    def __iter__(self):
        while self.position < self.batches:
            self.position += 1
            chosen = torch.multinomial(self.difficulty, self.batch_size, generator=self.generator)
            yield chosen.tolist()
        self.position = 0

    def observe(self, indices, losses):
        self.difficulty[indices] = 0.5 * self.difficulty[indices] + 0.5 * losses.clamp(0.01, 4)

    def state_dict(self):
        return {
            "difficulty": self.difficulty.clone(),
            "position": self.position,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state):
        self.difficulty = state["difficulty"].clone()
        self.position = state["position"]
        self.generator.set_state(state["generator"])


points = Points(60)
sampler = DifficultFirst(len(points), batch_size=10, batches=7, seed=130)
loader = DataLoader(points, batch_sampler=sampler)
model = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("sampler", sampler)

for indices, x, y in holdwater.batches(loader, steps=40):
    losses = (model(x) - y).square()[:, 0]
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()
    sampler.observe(indices, losses.detach())
    print("loss", losses.mean().item().hex(), flush=True)
print("difficulty", sampler.difficulty.double().sum().item().hex())
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
