import os
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(8)


class PredictionLog:
    def __init__(self, folder, every=600):
        self.folder, self.every = folder, every
        self.inputs, self.rows, self.parts = [], [], 0

    def add(self, step, inputs, scores, labels):
        self.inputs.append(inputs.numpy())
        self.rows.extend((step, s, y) for s, y in zip(scores.tolist(), labels.tolist()))
        if step % self.every == 0:
            self.write()

    def write(self):
        steps, scores, labels = map(list, zip(*self.rows))
        values = pa.array(np.concatenate(self.inputs).ravel())
        table = pa.table({
            "step": steps, "score": scores, "label": labels,
            "input": pa.FixedSizeListArray.from_arrays(values, self.inputs[0].shape[1]),
        })
        pq.write_table(table, os.path.join(self.folder, f"part-{self.parts:04d}.parquet"), compression="none")
        self.parts += 1
        self.inputs, self.rows = [], []


class Ranker(nn.Module):
    def __init__(self, features=200):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.net(x).squeeze(1)


with tempfile.TemporaryDirectory() as folder:
    log, model = PredictionLog(folder), Ranker()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
    direction = torch.randn(200)
    for step in range(1, 7201):
        x = torch.randn(96, 200)
        y = ((x @ direction) > 0).float()
        scores = model(x)
        loss = nn.functional.binary_cross_entropy_with_logits(scores, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.add(step, x, scores.detach(), y)
        if step % 1000 == 0:
            print(f"{step} loss {loss.item():.4f} files {log.parts}")
    print(f"{step} steps, {log.parts} files")
