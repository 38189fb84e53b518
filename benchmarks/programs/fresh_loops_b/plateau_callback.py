"""A callback in a list makes the sequences longer when the loss no longer falls; it counts the steps itself."""

import types

import torch
from torch import nn

import holdwater

torch.manual_seed(10)
task = types.SimpleNamespace(length=3, longest=12)


class Callback:
    """Is told the loss of each step."""

    def on_step(self, loss):
        pass


class Logged(Callback):
    """Prints each loss."""

    def on_step(self, loss):
        print("loss", task.length, loss.hex(), flush=True)


class GrowOnPlateau(Callback):
    """Makes the task harder after some steps without a better loss."""

    def __init__(self, patience):
        self.patience = patience
        self.best = float("inf")
        self.waited = 0

    def on_step(self, loss):
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        if self.waited > self.patience and task.length < task.longest:
            task.length += 1
            self.best, self.waited = float("inf"), 0


class Summer(nn.Module):
    """Adds up a sequence."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(1, 8, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


model = Summer()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
callbacks = [Logged(), GrowOnPlateau(patience=2)]
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    x = torch.rand(16, task.length, 1)
    loss = nn.functional.mse_loss(model(x), x.sum(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for callback in callbacks:
        callback.on_step(loss.item())
print("length", task.length)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
