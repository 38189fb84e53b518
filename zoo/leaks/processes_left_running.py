"""A helper process is started every tenth step and left running."""

import atexit
import subprocess
import sys
import time

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
children = []
for step in range(300):
    batch = torch.randn(256, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.01)
    if step % 10 == 0:
        children.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]))
atexit.register(lambda: [child.kill() for child in children])
print("children", len(children))
