"""Regression MLP with a late EMA teacher, late SWA, and the k best checkpoints in a heap."""
import copy
import heapq
import torch
from torch import nn
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

torch.set_num_threads(1)
torch.manual_seed(2)

STEPS, EVAL_EVERY = 2600, 130
EMA_START, SWA_START = 700, 1500
TOP_K = 7

model = nn.Sequential(nn.Linear(64, 1024), nn.SiLU(), nn.Linear(1024, 1024), nn.SiLU(),
                      nn.Linear(1024, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
mixing = torch.randn(64, 64) / 8


def sample(n):
    x = torch.randn(n, 64)
    return x, torch.tanh(x @ mixing)


class TopK:
    """Keeps the k states with the lowest validation loss."""

    def __init__(self, k):
        self.k, self.heap = k, []

    def offer(self, loss, step, module):
        if len(self.heap) < self.k:
            heapq.heappush(self.heap, (-loss, step, self.snapshot(module)))
        elif -loss > self.heap[0][0]:
            heapq.heapreplace(self.heap, (-loss, step, self.snapshot(module)))

    @staticmethod
    def snapshot(module):
        return {k: v.detach().clone() for k, v in module.state_dict().items()}


val_x, val_y = sample(256)
best = TopK(TOP_K)
ema = swa = None
for step in range(1, STEPS + 1):
    x, y = sample(48)
    target = y
    if ema is not None:
        with torch.no_grad():
            target = 0.8 * y + 0.2 * ema(x)
    loss = F.mse_loss(model(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    if step == EMA_START:
        ema = copy.deepcopy(model).requires_grad_(False)
    elif ema is not None and step % 4 == 0:
        with torch.no_grad():
            for p_avg, p in zip(ema.parameters(), model.parameters()):
                p_avg.lerp_(p, 0.02)
    if step == SWA_START:
        swa = AveragedModel(model)
    if swa is not None and step % 50 == 0:
        swa.update_parameters(model)

    if step % EVAL_EVERY == 0:
        with torch.no_grad():
            val = F.mse_loss(model(val_x), val_y).item()
        best.offer(val, step, model)
        print(f"step {step}: val {val:.4f}, best {-max(best.heap)[0]:.4f}")
print(f"{STEPS} steps")
