"""Sequence model over a long tick recording that is kept on disk and mapped."""
import os
import tempfile

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(13)
rng = np.random.default_rng(13)

WINDOW, COUNT = 16384, 3200


def record(path):
    with open(path, "wb") as out:
        level = 0.0
        for _ in range(COUNT // 32):
            walk = level + rng.standard_normal(WINDOW * 32).cumsum() * 0.01
            level = walk[-1]
            out.write(walk.astype("float32").tobytes())


class Ticks(Dataset):
    def __init__(self, path):
        self.data = np.memmap(path, dtype="float32", mode="r", shape=(COUNT, WINDOW))

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        row = self.data[i]
        part = row.reshape(-1, 64).mean(1)
        return torch.from_numpy(part - part[0])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 96, batch_first=True)
        self.head = nn.Linear(96, 8)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "ticks.f32")
    record(path)
    loader = DataLoader(Ticks(path), batch_size=4, shuffle=True)
    model = Model()
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    step = 0
    for epoch in range(4):
        for batch in loader:
            seq = batch.reshape(len(batch), -1, 8)
            loss = nn.functional.mse_loss(model(seq[:, :-1]), seq[:, 1:])
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
            if step % 400 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.4f}", flush=True)
