"""Point-cloud regression fed by length-prefixed binary records, decoded with ctypes."""
import ctypes
import random

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
random.seed(0)


def encode():
    n = random.randint(16, 400)
    values = rng.standard_normal(n).astype(np.float32)
    return np.int32(n).tobytes() + np.float32(values.std()).tobytes() + values.tobytes()


def decode(blob):
    n = int.from_bytes(blob[:4], "little")

    class Record(ctypes.Structure):
        _fields_ = [("n", ctypes.c_int32), ("target", ctypes.c_float), ("values", ctypes.c_float * n)]

    buffer = ctypes.create_string_buffer(blob, len(blob))
    record = ctypes.cast(buffer, ctypes.POINTER(Record)).contents
    return np.array(record.values, dtype=np.float32), record.target


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64))
        self.rho = nn.Linear(64, 1)

    def forward(self, sets):
        return torch.cat([self.rho(self.phi(s[:, None]).mean(0)) for s in sets])


model = PointNet()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 5801):
    records = [decode(encode()) for _ in range(6)]
    sets = [torch.from_numpy(v) for v, _ in records]
    target = torch.tensor([t for _, t in records])
    loss = (model(sets) - target).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 500 == 0:
        print(f"step {step} loss {loss.item():.4f}", flush=True)
