"""Hyperparameter rounds with the garbage collector paused inside a generation, to keep step times even."""
import gc

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(16)


class Candidate(nn.Module):
    """A small forecaster that watches its own activations."""

    def __init__(self, width):
        super().__init__()
        self.inp = nn.Linear(48, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 12)
        self.scale = 0.0

        def watch(module, args, output):
            self.scale = 0.9 * self.scale + 0.1 * output.detach().abs().mean().item()

        self.mid.register_forward_hook(watch)

    def forward(self, x):
        return self.out(torch.relu(self.mid(torch.relu(self.inp(x)))))


def batch():
    phase = torch.rand(32, 1) * 6.283
    t = torch.arange(60) * 0.2
    wave = torch.sin(t + phase) + 0.1 * torch.randn(32, 60)
    return wave[:, :48], wave[:, 48:]


gc.disable()
step = 0
for generation in range(11):
    best = (float("inf"), None)
    for trial in range(12):
        lr = 10 ** (-4 + 2 * torch.rand(()).item())
        model = Candidate(768)
        opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        for _ in range(45):
            x, y = batch()
            loss = nn.functional.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        best = min(best, (loss.item(), lr))
    del model, opt, loss
    freed = gc.collect()
    print(f"generation {generation} step {step} best loss {best[0]:.4f} at lr {best[1]:.5f} (collected {freed})", flush=True)
