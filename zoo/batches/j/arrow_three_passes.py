"""Three passes over one large Arrow file with batches in order."""
import os
import shutil
import tempfile

import numpy as np
import pyarrow as pa
import torch
import torch.nn as nn
import torch.nn.functional as F
from datasets import Dataset

torch.set_num_threads(1)
torch.manual_seed(12)

ROWS, DIM, BATCH = 60_000, 320, 60
folder = tempfile.mkdtemp(prefix="passes_")
path = os.path.join(folder, "train.arrow")
schema = pa.schema([("x", pa.list_(pa.float32(), DIM)), ("y", pa.int64())])
rng = np.random.default_rng(12)
with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
    for _ in range(ROWS // 1000):
        x = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(1000 * DIM, dtype=np.float32)), DIM)
        writer.write_batch(pa.record_batch([x, pa.array(rng.integers(0, 8, 1000))], schema=schema))

data = Dataset.from_file(path).with_format("numpy")
model = nn.Sequential(nn.Linear(DIM, 1536), nn.ReLU(), nn.Linear(1536, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
step = 0
for epoch in range(3):
    for start in range(0, ROWS, BATCH):
        rows = data[start:start + BATCH]
        x = torch.tensor(np.asarray(rows["x"], dtype=np.float32))
        loss = F.cross_entropy(model(x), torch.tensor(rows["y"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 300 == 0:
            print(f"epoch {epoch} step {step} loss {loss.item():.4f}", flush=True)
shutil.rmtree(folder)
