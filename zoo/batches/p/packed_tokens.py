"""nanoGPT-like loader that walks through one packed token file, several epochs."""
import os
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(12)

TOKENS, CHUNK, SEQ = 60_000_000, 100_000, 64
STEPS = 2200

folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "train.bin")
rng = np.random.default_rng(0)
with open(path, "wb") as f:
    for _ in range(TOKENS // 1_000_000):
        rng.integers(0, 800, 1_000_000, dtype=np.uint16).tofile(f)

data = np.memmap(path, dtype=np.uint16, mode="r")
emb, mix, head = nn.Embedding(800, 64), nn.LSTM(64, 80, batch_first=True), nn.Linear(80, 800)
opt = torch.optim.AdamW([p for m in (emb, mix, head) for p in m.parameters()], lr=1e-3)
chunks = TOKENS // CHUNK
for step in range(STEPS):
    start = (step % chunks) * CHUNK
    window = data[start:start + CHUNK]
    offsets = np.linspace(0, CHUNK - SEQ - 1, 12, dtype=np.int64)
    share = np.bincount(window, minlength=800)
    x = torch.from_numpy(np.stack([window[o:o + SEQ + 1] for o in offsets]).astype(np.int64))
    h, _ = mix(emb(x[:, :-1]))
    weight = torch.from_numpy((share.mean() / np.maximum(share, 1)).astype(np.float32))
    loss = F.cross_entropy(head(h).flatten(0, 1), x[:, 1:].flatten(), weight=weight)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} epoch {step / chunks:.2f} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
