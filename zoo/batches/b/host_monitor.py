import collections
import threading
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(6)


class HostMonitor(threading.Thread):
    """Samples the host a few times a second so that slow steps can be explained afterwards."""

    def __init__(self, period=0.12):
        super().__init__(daemon=True)
        self.period = period
        self.samples = collections.deque()
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(self.period):
            with open("/proc/self/smaps") as handle:
                report = handle.read()
            self.samples.append((time.time(), report))

    def latest_dirty_kb(self):
        if not self.samples:
            return 0
        report = self.samples[-1][1]
        return sum(int(line.split()[1]) for line in report.splitlines() if line.startswith("Private_Dirty"))


class ImputeNet(nn.Module):
    def __init__(self, features=40):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(features * 2, 192), nn.SiLU(), nn.Linear(192, 64), nn.SiLU())
        self.decode = nn.Linear(64, features)

    def forward(self, x, mask):
        return self.decode(self.encode(torch.cat([x * mask, mask], dim=1)))


def make_table(rows=20_000, features=40):
    factors = torch.randn(rows, 6) @ torch.randn(6, features)
    return factors + 0.2 * torch.randn(rows, features)


monitor = HostMonitor()
table = make_table()
model = ImputeNet()
optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-4)
monitor.start()
step = 0
deadline_epochs = 30
for epoch in range(deadline_epochs):
    for rows in torch.randperm(len(table)).split(128):
        x = table[rows]
        mask = (torch.rand_like(x) > 0.3).float()
        loss = ((model(x, mask) - x) * (1 - mask)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    time.sleep(0.15)
    print(f"epoch {epoch} loss {loss.item():.4f} dirty {monitor.latest_dirty_kb() // 1024} MB")
monitor.stopped.set()
monitor.join()
print(f"finished after {step} steps")
