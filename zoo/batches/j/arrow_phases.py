"""Training over an Arrow file that is opened afresh for every epoch, one dataset a phase."""
import os
import shutil
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from datasets import Dataset, DatasetDict

torch.set_num_threads(1)
torch.manual_seed(6)

EPOCHS = 24
ROWS = 12000
BATCH = 80

folder = tempfile.mkdtemp(prefix="phases_")
rng = np.random.default_rng(6)
table = Dataset.from_dict({"x": rng.standard_normal((ROWS, 192)).astype(np.float32), "y": rng.integers(0, 6, ROWS)})
table.save_to_disk(folder)
path = next(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".arrow"))
del table

model = nn.Sequential(nn.Linear(192, 2048), nn.ReLU(), nn.Linear(2048, 6))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
phases = DatasetDict()
step = 0
for epoch in range(EPOCHS):
    phase = Dataset.from_file(path).with_format("numpy")
    phases[f"phase_{epoch:03d}"] = phase
    for start in range(0, ROWS, BATCH):
        rows = phase[start:start + BATCH]
        x = torch.tensor(rows["x"], dtype=torch.float32)
        loss = F.cross_entropy(model(x), torch.tensor(rows["y"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    if epoch % 3 == 2:
        print(f"epoch {epoch + 1} step {step} loss {loss.item():.4f}", flush=True)
shutil.rmtree(folder)
