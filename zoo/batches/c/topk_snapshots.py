import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(47)


class WeightSoup:
    """Keeps the best weights by validation score and can average them."""

    def __init__(self, size=16):
        self.size = size
        self.entries = []

    def offer(self, score, model, step):
        if len(self.entries) == self.size and score >= self.entries[-1][0]:
            return False
        if len(self.entries) == self.size:
            storage = self.entries.pop()[2]
        else:
            storage = {k: torch.empty_like(v) for k, v in model.state_dict().items()}
        for name, value in model.state_dict().items():
            storage[name].copy_(value)
        self.entries.append((score, step, storage))
        self.entries.sort(key=lambda e: e[:2])
        return True

    def average(self):
        first = self.entries[0][2]
        return {k: sum(e[2][k] for e in self.entries) / len(self.entries) for k in first}


class Forecaster(nn.Module):
    def __init__(self, window=64, width=640):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(window, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 8))

    def forward(self, x):
        return self.net(x)


def windows(n):
    phase, rate = torch.rand(n, 1) * 6.28, 0.1 + torch.rand(n, 1) * 0.3
    wave = torch.sin(phase + rate * torch.arange(72)) + 0.05 * torch.randn(n, 72)
    return wave[:, :64], wave[:, 64:]


soup, model = WeightSoup(), Forecaster()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9995)
x_val, y_val = windows(1000)
for step in range(1, 1921):
    x, y = windows(64)
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 60 == 0:
        with torch.no_grad():
            score = (model(x_val) - y_val).pow(2).mean().item()
        kept = soup.offer(score, model, step)
        if step % 240 == 0:
            print(f"{step} valid {score:.5f} kept {kept} best {soup.entries[0][0]:.5f}")
model.load_state_dict(soup.average())
print(f"averaged {len(soup.entries)} sets of weights after {step} steps")
