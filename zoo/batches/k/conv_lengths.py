"""1-d convolution classifier on clips of many different lengths (one length per batch)."""
import random

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

LENGTHS = [200 + 14 * i for i in range(60)]


class ClipNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(16, 32, 5, stride=2)
        self.conv2 = nn.Conv1d(32, 32, 5, stride=2)
        self.fc = nn.Linear(32, 8)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.fc(x.amax(-1))


model = ClipNet()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
seen = set()
for step in range(1, 5901):
    length = random.choice(LENGTHS)
    seen.add(length)
    y = torch.randint(0, 8, (12,))
    t = torch.arange(length) / 200.0
    x = torch.randn(12, 16, length) * 0.5 + torch.sin(t * (1 + y[:, None].float()) * 6)[:, None, :]
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 500 == 0:
        print(f"step {step} loss {loss.item():.3f} lengths seen {len(seen)}", flush=True)
