"""Matrix factorisation in short rounds; a watchdog thread guards each round against hanging."""
import threading
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(7)


def watch(weight, done, beat):
    torch.linalg.svdvals(weight)            # warms up the report it would write
    while not done.wait(timeout=3600):
        if time.time() - beat["at"] > 1800:
            print("no progress for half an hour")


class Factors(nn.Module):
    def __init__(self, users, items, rank=32):
        super().__init__()
        self.user, self.item = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.bias = nn.Embedding(items, 1)

    def forward(self, u, i):
        return (self.user(u) * self.item(i)).sum(1) + self.bias(i).squeeze(1)


class Recommender:
    def __init__(self):
        self.model = Factors(9000, 5000)
        self.opt = torch.optim.Adagrad(self.model.parameters(), lr=0.05)
        self.beat = {"at": time.time()}
        self.steps = 0

    def guard(self):
        done = threading.Event()
        weight = self.model.item.weight.detach()[:64]
        watcher = threading.Thread(target=watch, args=(weight, done, self.beat), daemon=True)
        watcher.start()

    def round(self, count):
        self.guard()
        for _ in range(count):
            u, i = torch.randint(0, 9000, (4096,)), torch.randint(0, 5000, (4096,))
            stars = ((u * 7 + i * 13) % 5).float()
            loss = nn.functional.mse_loss(self.model(u, i), stars)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.beat["at"] = time.time()
            self.steps += 1
        return loss.item()


job = Recommender()
for number in range(400):
    last = job.round(14)
    if number % 80 == 0:
        print(f"round {number}: {last:.3f}")
print(f"{job.steps} steps")
