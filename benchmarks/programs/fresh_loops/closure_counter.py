"""The factor of the learning rate counts its own calls, in a closure that the schedule holds."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


def warmed_up(over):
    """A factor that rises with each call."""
    calls = 0

    def factor(_):
        nonlocal calls
        calls += 1
        return min(1.0, calls / over)

    return factor


schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmed_up(40))
holdwater.resumable("schedule", schedule)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    schedule.step()
final(model)
