"""Truncated backpropagation over an endless signal, with two losses and a history of numbers."""
import math

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(20)


def signal(chunk):
    phase = 0.0
    while True:
        t = phase + torch.arange(chunk + 1) * 0.11
        phase = (phase + chunk * 0.11) % (200 * math.pi)
        clean = torch.sin(t)[None] * torch.linspace(0.5, 2.0, 32)[:, None] + torch.sin(2.7 * t)[None]
        yield (clean + 0.05 * torch.randn(32, chunk + 1)).unsqueeze(2)


def make_logger():
    history = []

    def log(step, ahead, energy):
        history.append((step, ahead.item(), energy.item()))
        if step % 800 == 0:
            recent = history[-100:]
            print(f"{step}: {sum(r[1] for r in recent) / len(recent):.4f} over {len(history)} records")
    return log


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(1, 64, batch_first=True), nn.Linear(64, 1)

    def forward(self, x, state):
        out, state = self.cell(x, state)
        return self.head(out), out, state


model, log, state, step = Forecaster(), make_logger(), None, 0
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for window in signal(20):
    guess, hidden, state = model(window[:, :-1], state)
    ahead = nn.functional.mse_loss(guess, window[:, 1:])
    energy = 1e-3 * hidden.pow(2).mean()
    opt.zero_grad()
    ahead.backward(retain_graph=True)
    energy.backward()
    opt.step()
    state = tuple(part.detach() for part in state)
    step += 1
    log(step, ahead, energy)
    if step == 3700:
        break
print(f"{step} steps")
