import json
import os
import tempfile

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(28)


def write_parts(folder, parts=12, rows=900):
    generator = torch.Generator().manual_seed(3)
    for part in range(parts):
        x = torch.randn(rows, 16, generator=generator)
        with open(os.path.join(folder, f"valid-{part:02d}.jsonl"), "w") as out:
            for row in x.round(decimals=3).tolist():
                out.write(json.dumps({"x": row, "y": row[0] * row[1] - row[2]}) + "\n")


class PartReader:
    """Random access to the lines of a set of JSON-lines files."""

    def __init__(self, folder):
        self.paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        self.streams = []

    def rewind(self):
        current = []
        for path in self.paths:
            stream = open(path, "rb", buffering=1 << 16)
            self.streams.append(stream)
            current.append(stream)
        return current

    def head(self, rows):
        for stream in self.rewind():
            for _ in range(rows):
                yield json.loads(stream.readline())


def validate(model, reader):
    records = list(reader.head(40))
    x = torch.tensor([r["x"] for r in records])
    y = torch.tensor([r["y"] for r in records])
    with torch.no_grad():
        return (model(x).squeeze(1) - y).pow(2).mean().item()


with tempfile.TemporaryDirectory() as folder:
    write_parts(folder)
    reader = PartReader(folder)
    model = nn.Sequential(nn.Linear(16, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, 10001):
        x = torch.randn(64, 16)
        loss = (model(x).squeeze(1) - (x[:, 0] * x[:, 1] - x[:, 2])).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 250 == 0:
            print(f"{step} train {loss.item():.4f} valid {validate(model, reader):.4f}")
    print(f"{step} steps")
