"""A loader whose worker lives as long as the loader, and draws random numbers."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import holdwater
from tiny import data, final, network, show


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Rows with noise."""

    def __init__(self) -> None:
        self.inputs, self.targets = data()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + 0.1 * torch.randn(8), self.targets[index]


model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
loader = DataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=1, persistent_workers=True)
for x, y in holdwater.batches(loader, steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
