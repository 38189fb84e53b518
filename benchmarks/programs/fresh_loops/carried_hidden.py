"""The hidden state of a recurrent network is carried from step to step."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()


class Recurrent(nn.Module):
    """A cell and a readout."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(8, 16)
        self.readout = nn.Linear(16, 1)


model = Recurrent()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
hidden = torch.zeros(8, 16)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    hidden = model.cell(inputs[chosen], hidden.detach())
    loss = nn.functional.mse_loss(model.readout(hidden), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
