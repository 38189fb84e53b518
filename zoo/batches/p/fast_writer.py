"""Frequent rotating checkpoints through a direct writer, for quick resumption."""
import io
import os
import shutil
import tempfile

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(4)

STEPS, SAVE_EVERY, KEEP, BLOCK = 3600, 6, 3, 4096


class DirectWriter:
    """Writes whole blocks first, then reopens the file for the unaligned tail."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def write(self, data):
        whole = len(data) // BLOCK * BLOCK
        os.write(self.fd, data[:whole])
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(self.fd, data[whole:])

    def finish(self):
        self.path = None
        self.fd = -1


class Checkpointer:
    def __init__(self, folder):
        self.folder = folder
        self.saved = []

    def save(self, step, model, opt):
        buf = io.BytesIO()
        torch.save({"model": model.state_dict(), "step": step}, buf)
        path = os.path.join(self.folder, f"step{step}.pt")
        writer = DirectWriter(path)
        writer.write(buf.getvalue())
        writer.finish()
        self.saved.append(path)
        while len(self.saved) > KEEP:
            os.unlink(self.saved.pop(0))


folder = tempfile.mkdtemp()
model = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
ckpt = Checkpointer(folder)
centers = torch.randn(10, 64)
for step in range(1, STEPS + 1):
    y = torch.randint(0, 10, (768,))
    loss = nn.functional.cross_entropy(model(centers[y] + torch.randn(768, 64)), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % SAVE_EVERY == 0:
        ckpt.save(step, model, opt)
    if step % 300 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
shutil.rmtree(folder)
print(f"finished {STEPS} steps")
