"""Collision-event classifier: every step decodes a handful of raw records."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(13)
rng = np.random.default_rng(13)
RECORD, HEADER, FEATURES, PER_STEP, STEPS = 12_640, 640, 120, 24, 1800
ROWS = (RECORD - HEADER) // FEATURES


def read_record(number):
    """One raw record: a header followed by the detector payload."""
    record = bytearray(RECORD)
    record[:8] = number.to_bytes(8, "little")
    np.frombuffer(record, np.uint8)[HEADER:] = payloads[number % len(payloads)]
    return record


def decode(records):
    for row, record in zip(block, records):
        hits = np.frombuffer(record, dtype=np.uint8, offset=HEADER).reshape(ROWS, FEATURES)
        np.divide(hits, np.float32(255), out=row, dtype=np.float32)
    y = torch.tensor([record[0] % 3 for record in records]).repeat_interleave(ROWS)
    return torch.from_numpy(block).flatten(0, 1), y


class RunSummary:
    """Headers of the processed records, for the luminosity report."""

    def __init__(self):
        self.headers = []

    def add(self, record):
        del record[HEADER:]
        self.headers.append(record)

    def last_number(self):
        return int.from_bytes(self.headers[-1][:8], "little")


block = np.zeros((PER_STEP, ROWS, FEATURES), np.float32)
payloads = rng.integers(0, 256, (6, RECORD - HEADER), dtype=np.uint8)
model = nn.Sequential(nn.Linear(FEATURES, 80), nn.ReLU(), nn.Linear(80, 48), nn.ReLU(), nn.Linear(48, 3))
optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-4)
summary = RunSummary()
for step in range(1, STEPS + 1):
    records = [read_record((step - 1) * PER_STEP + i) for i in range(PER_STEP)]
    x, y = decode(records)
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for record in records:
        summary.add(record)
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.4f} record {summary.last_number()}")
print(f"{STEPS} steps")
