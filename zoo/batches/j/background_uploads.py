"""Regression with snapshots sent to a slow bucket from a background thread."""
import io
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(4)

STEPS = 2600
SNAPSHOT_EVERY = 10

uploader = ThreadPoolExecutor(max_workers=1)
sent = []


def upload(snapshot, step):
    blob = io.BytesIO()
    torch.save(snapshot["step"], blob)
    time.sleep(0.5)
    sent.append(step)


model = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 384), nn.GELU(), nn.Linear(384, 8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
target = torch.randn(128, 8) / 11

for step in range(1, STEPS + 1):
    x = torch.randn(96, 128)
    loss = F.mse_loss(model(x), torch.sin(x @ target))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % SNAPSHOT_EVERY == 0:
        snapshot = {k: v.detach().clone() for k, v in model.state_dict().items()}
        snapshot["step"] = step
        uploader.submit(upload, snapshot, step)
    if step % 260 == 0:
        print(f"step {step} loss {loss.item():.4f} uploaded {len(sent)}", flush=True)

uploader.shutdown(wait=False, cancel_futures=True)
