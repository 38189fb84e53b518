import logging
import logging.handlers
import sys

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(10)


def make_logger(debug_file=None):
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    buffered = logging.handlers.MemoryHandler(capacity=256)
    if debug_file:
        buffered.setTarget(logging.FileHandler(debug_file))
    logger = logging.getLogger("train")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(console)
    logger.addHandler(buffered)
    return logger


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))

    def forward(self, x):
        return self.layers(x).squeeze(1)


def flat_gradient(model):
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


log = make_logger()
model = Regressor()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
weights = torch.randn(12)
mean_loss = 0.0
for step in range(1, 20001):
    x = torch.randn(128, 12)
    y = torch.sin(x @ weights)
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    if step % 10 == 0:
        gradient = flat_gradient(model)
        log.debug("step %d loss %.4f gradient %s", step, loss.item(), gradient)
    optimizer.step()
    mean_loss += (loss.item() - mean_loss) * 0.01
    if mean_loss > 100:
        log.error("diverged at step %d", step)
        break
    if step % 4000 == 0:
        log.info("%d mean loss %.4f", step, mean_loss)
print(f"completed {step} steps")
