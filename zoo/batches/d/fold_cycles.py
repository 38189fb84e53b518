"""Cross-validation with callbacks that point back at their trainer; collection runs on a schedule."""
import gc

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
gc.disable()                 # no pauses inside a fold


class EarlyStop:
    def __init__(self, trainer, patience):
        self.trainer, self.patience, self.best, self.bad = trainer, patience, float("inf"), 0

    def __call__(self, loss):
        self.bad = 0 if loss < self.best else self.bad + 1
        self.best = min(self.best, loss)
        self.trainer.stop = self.bad > self.patience


class FoldTrainer:
    def __init__(self, x, y, held_out):
        mask = torch.ones(len(x), dtype=torch.bool)
        mask[held_out] = False
        self.x, self.y = x[mask], y[mask]
        self.model = nn.Sequential(nn.Linear(80, 512), nn.SELU(), nn.Linear(512, 128), nn.SELU(), nn.Linear(128, 1))
        self.opt = torch.optim.RAdam(self.model.parameters(), lr=1e-3)
        self.stop = False
        self.callback = EarlyStop(self, patience=1000)

    def fit(self, steps):
        for step in range(steps):
            pick = torch.randint(0, len(self.x), (128,))
            loss = nn.functional.huber_loss(self.model(self.x[pick]).squeeze(1), self.y[pick])
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.callback(loss.item())
            if self.stop:
                break
        return step + 1


x = torch.randn(4000, 80)
y = (x[:, :5] ** 2).sum(1).sqrt() + 0.1 * torch.randn(4000)
steps = 0
for repeat in range(18):
    order = torch.randperm(len(x))
    for fold in range(10):
        steps += FoldTrainer(x, y, order[fold * 400:(fold + 1) * 400]).fit(30)
    gc.collect()
    print(f"repeat {repeat} done")
print(f"{steps} steps")
