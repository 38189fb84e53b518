import math
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(9)


class SensorWindows:
    """Windows of a sensor; after the calibration period some arrive with dropped samples (NaN)."""

    def __init__(self, calibrated_until=500, channels=8, length=160):
        self.calibrated_until = calibrated_until
        self.shape = (32, channels, length)
        self.drawn = 0

    def draw(self):
        self.drawn += 1
        batch = torch.randn(self.shape).cumsum(dim=2) * 0.1
        faulty = self.drawn > self.calibrated_until and (self.drawn // 40) % 3 == 0
        if faulty and torch.rand(()) < 0.55:
            batch[0, 0, :5] = math.nan
        return batch


class Trainer:
    def __init__(self, source):
        self.source = source
        self.net = nn.Sequential(nn.Conv1d(8, 24, 7, padding=3), nn.ReLU(), nn.Conv1d(24, 8, 7, padding=3))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.skipped = []

    def train_step(self):
        batch = self.source.draw()
        noisy = batch + 0.3 * torch.randn_like(batch)
        loss = nn.functional.mse_loss(self.net(noisy), batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} for window {self.source.drawn}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, steps):
        last = math.inf
        for step in range(1, steps + 1):
            try:
                last = self.train_step()
            except FloatingPointError as problem:
                self.skipped.append(problem)
                time.sleep(0.01)
            if step % 200 == 0:
                print(f"step {step} loss {last:.5f} skipped so far {len(self.skipped)}")
        return step


trainer = Trainer(SensorWindows())
total = trainer.fit(1800)
print("last reason:", trainer.skipped[-1])
print(f"{total} steps, {len(trainer.skipped)} of them without an update")
