"""Training on a sliding window of a clip manifest kept as a pandas table."""
import hashlib

import numpy as np
import pandas as pd
import torch
from torch import nn

torch.set_num_threads(1)
pd.set_option("future.infer_string", False)
torch.manual_seed(3)
rng = np.random.default_rng(3)

ROUNDS = 60
STEPS_PER_ROUND = 50
NEW_PER_ROUND = 8000
WINDOW = 6000


def new_rows(round_no):
    paths = []
    for i in range(NEW_PER_ROUND):
        h = hashlib.sha1(f"{round_no}-{i}".encode()).hexdigest()
        paths.append(f"/data/speech/corpora/session_{round_no:04d}/speaker_{h[:8]}/recordings/{h}/channel0/take_{h[8:20]}.flac")
    return pd.DataFrame({
        "path": pd.Categorical(paths),
        "duration": rng.gamma(4.0, 1.0, NEW_PER_ROUND).astype("float32"),
        "snr": rng.normal(12, 4, NEW_PER_ROUND).astype("float32"),
    })


class Manifest:
    def __init__(self):
        self.table = None

    def extend(self, rows):
        if self.table is None:
            self.table = rows
            return
        path = pd.api.types.union_categoricals([self.table["path"], rows["path"]])
        merged = pd.concat([self.table[["duration", "snr"]], rows[["duration", "snr"]]], ignore_index=True)
        merged["path"] = path
        self.table = merged.iloc[-WINDOW:].reset_index(drop=True)

    def sample(self, n):
        take = self.table.iloc[rng.integers(0, len(self.table), n)]
        return torch.tensor(take[["duration", "snr"]].to_numpy())


manifest = Manifest()
model = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

for round_no in range(ROUNDS):
    manifest.extend(new_rows(round_no))
    for _ in range(STEPS_PER_ROUND):
        x = manifest.sample(128)
        target = (x[:, :1].log1p() * x[:, 1:] / 10).detach()
        loss = nn.functional.mse_loss(model(x), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if round_no % 5 == 0:
        print(f"round {round_no} rows {len(manifest.table)} loss {loss.item():.4f}", flush=True)
