"""Random views of samples are drawn once and kept by functools.lru_cache, which forgets the oldest."""

import functools

import torch
from torch import nn

import holdwater

torch.manual_seed(7)
samples = torch.randn(24, 3, 6)
labels = (samples.mean((1, 2)) > 0).float()


@functools.lru_cache(maxsize=16)
def view(index):
    """A random crop with noise; too slow to draw anew at each visit."""
    start = int(torch.randint(0, 3, ()))
    return samples[index, :, start : start + 4] + 0.2 * torch.randn(3, 4)


model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    batch = torch.randint(0, len(samples), (6,)).tolist()
    x = torch.stack([view(index) for index in batch])
    loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("misses", view.cache_info().misses)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
