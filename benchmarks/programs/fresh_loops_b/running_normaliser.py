"""Inputs are normalised by running moments, attributes of a transform inside the data set inside the loader."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import holdwater

torch.manual_seed(6)


class RunningNormaliser:
    """Subtract the mean and divide by the deviation of all samples so far (Welford, 1962)."""

    def __init__(self):
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def __call__(self, sample):
        for value in sample.tolist():
            self.count += 1
            change = value - self.mean
            self.mean += change / self.count
            self.squares += change * (value - self.mean)
        return (sample - self.mean) / (self.squares / self.count + 1e-6) ** 0.5


class Compose:
    """One transform after the other."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, sample):
        for transform in self.transforms:
            sample = transform(sample)
        return sample


class Readings(Dataset):
    """Readings of a sensor whose offset drifts."""

    def __init__(self, transform):
        self.values = torch.randn(48, 5) * 3 + torch.linspace(0, 20, 48)[:, None]
        self.transform = transform

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.transform(self.values[index]), self.values[index].std()


transform = Compose([torch.Tensor.float, RunningNormaliser()])
loader = DataLoader(Readings(transform), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=3e-2, momentum=0.9)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for x, y in holdwater.batches(loader, steps=40):
    loss = nn.functional.mse_loss(model(x)[:, 0], y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
