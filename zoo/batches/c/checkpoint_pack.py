import io
import os
import subprocess
import tempfile
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(29)


class PackedCheckpoints:
    """Streams checkpoints through gzip so that training does not wait for the compression."""

    def __init__(self, folder):
        self.folder = folder
        self.jobs = []

    def save(self, model, step):
        buffer = io.BytesIO()
        torch.save({"model": model.state_dict(), "step": step}, buffer)
        with open(os.path.join(self.folder, f"step_{step}.pt.gz"), "wb") as target:
            job = subprocess.Popen(["gzip", "-9", "-c"], stdin=subprocess.PIPE, stdout=target)
        job.stdin.write(buffer.getvalue())
        job.stdin.flush()
        self.jobs.append(job)

    def finish(self):
        for job in self.jobs:
            job.communicate()


class Autoencoder(nn.Module):
    def __init__(self, inputs=128, hidden=96, code=12):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, inputs))

    def forward(self, x):
        return self.decoder(self.encoder(x))


with tempfile.TemporaryDirectory() as folder:
    checkpoints, model = PackedCheckpoints(folder), Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mixing = torch.randn(10, 128)
    for step in range(1, 4801):
        x = torch.tanh(torch.randn(320, 10) @ mixing)
        loss = nn.functional.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 120 == 0:
            checkpoints.save(model, step)
            time.sleep(0.05)
        if step % 600 == 0:
            print(f"{step} loss {loss.item():.5f}")
    print(f"{step} steps")
    checkpoints.finish()
