"""Random search: one short-lived Trainer per trial."""
import random
import weakref

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(17)
random.seed(17)
TRIALS, STEPS_PER_TRIAL, BATCH, FEATURES = 130, 24, 128, 200


class Trainer:
    def __init__(self, width, lr):
        self.width, self.lr = width, lr
        self.model = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        self.global_step = 0
        self.closed = False
        weakref.finalize(self.model, self.teardown)

    def teardown(self):
        self.closed = True

    def fit(self, loader):
        smoothed = None
        for x, y in loader:
            loss = nn.functional.mse_loss(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.global_step += 1
            smoothed = loss.item() if smoothed is None else 0.9 * smoothed + 0.1 * loss.item()
        return smoothed


weights = torch.randn(FEATURES, 1) / FEATURES ** 0.5


def batches(count):
    for _ in range(count):
        x = torch.randn(BATCH, FEATURES)
        yield x, x @ weights + 0.1 * torch.randn(BATCH, 1)


def run_trial(number):
    trainer = Trainer(width=random.choice([448, 512, 576]), lr=10 ** random.uniform(-3, -1))
    score = trainer.fit(batches(STEPS_PER_TRIAL))
    return {"trial": number, "width": trainer.width, "lr": trainer.lr, "score": score, "steps": trainer.global_step}


best, total = None, 0
for number in range(TRIALS):
    result = run_trial(number)
    total += result["steps"]
    if best is None or result["score"] < best["score"]:
        best = result
    if number % 26 == 0:
        print(f"trial {number} score {result['score']:.4f} best {best['score']:.4f} width {best['width']}")
print(f"{total} steps")
