"""Tabular regression; predictions of each batch go to one parquet file for later study."""
import os
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn as nn

STEPS = 2200
COLUMNS = 90

torch.set_num_threads(1)
torch.manual_seed(1)


def main():
    net = nn.Sequential(nn.Linear(COLUMNS, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    weight = torch.randn(COLUMNS)
    names = [f"feature_{i:03d}" for i in range(COLUMNS)] + ["target", "prediction"]
    schema = pa.schema([(n, pa.float32()) for n in names])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "predictions.parquet")
        writer = pq.ParquetWriter(path, schema, compression="none")
        for step in range(1, STEPS + 1):
            x = torch.randn(768, COLUMNS)
            y = (x @ weight).tanh() + 0.1 * torch.randn(768)
            pred = net(x).squeeze(1)
            loss = (pred - y).pow(2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            rows = np.column_stack([x.numpy(), y.numpy(), pred.detach().numpy()])[:2]
            table = pa.table([np.ascontiguousarray(c) for c in rows.T], schema=schema)
            writer.write_table(table)
            if step % 250 == 0:
                print(f"step {step} mse {loss.item():.4f}")
        writer.close()


main()
