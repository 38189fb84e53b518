"""Several epochs over an arrow table on disk, in order, with a small classifier on fixed features."""
import shutil
import tempfile
import time

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import nn

datasets.disable_progress_bars()
torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
ROWS, WIDTH, SHARD, EPOCHS, BATCH = 64_000, 512, 4000, 5, 128
folder = tempfile.mkdtemp(prefix="features-")
path = f"{folder}/train.arrow"

schema = pa.schema({"feature": pa.list_(pa.float32(), WIDTH), "label": pa.int64()})
mix = rng.standard_normal((WIDTH, 10)).astype(np.float32)
with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
    for _ in range(ROWS // SHARD):
        x = rng.standard_normal((SHARD, WIDTH), dtype=np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)
        writer.write_batch(pa.record_batch([column, pa.array((x @ mix).argmax(1))], schema=schema))
del x, column

train = datasets.Dataset.from_file(path).with_format("numpy")
model = nn.Sequential(nn.Linear(WIDTH, 768), nn.ReLU(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
began, step = time.time(), 0
for epoch in range(EPOCHS):
    for start in range(0, ROWS, BATCH):
        rows = train[start:start + BATCH]
        x = torch.tensor(np.asarray(rows["feature"]))
        y = torch.tensor(np.asarray(rows["label"]))
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"epoch {epoch} step {step} loss {loss.item():.4f} {time.time() - began:.1f}s", flush=True)
shutil.rmtree(folder)
print("steps", step)
