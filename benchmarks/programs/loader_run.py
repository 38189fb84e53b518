"""A small model over a loader with a worker that draws random numbers: for a soak of `holdwater run --supervise`.

loader_run.py STEPS
"""

import random
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import holdwater

STEPS = int(sys.argv[1])


class Rows(Dataset):
    """Rows of a table that does not exist."""

    def __len__(self) -> int:
        """Rows."""
        return 8 * 100

    def __getitem__(self, index: int) -> torch.Tensor:
        """One row, with noise."""
        return torch.rand(16) + random.random() + index / 100


random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(Rows(), batch_size=8, shuffle=True, num_workers=1)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for batch in holdwater.batches(loader, steps=STEPS):
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("trained")
