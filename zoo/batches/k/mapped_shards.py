"""Regression on rows read lazily from safetensors shards that stay open."""
import os
import random
import tempfile

import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import save_file

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
ROWS, WIDTH, SHARDS, BATCH = 2048, 1024, 20, 32

with tempfile.TemporaryDirectory() as folder:
    true_w = torch.randn(WIDTH, 1) / WIDTH ** 0.5
    for s in range(SHARDS):
        x = torch.randn(ROWS, WIDTH)
        save_file({"x": x, "y": torch.tanh(x @ true_w)}, os.path.join(folder, f"{s:03d}.safetensors"))
    shards = [safe_open(os.path.join(folder, f"{s:03d}.safetensors"), framework="pt") for s in range(SHARDS)]

    model = nn.Sequential(nn.Linear(WIDTH, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 1))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(4):
        for s in range(SHARDS):
            xs, ys = shards[s].get_slice("x"), shards[s].get_slice("y")
            starts = list(range(0, ROWS, BATCH))
            random.shuffle(starts)
            for i in starts:
                loss = nn.functional.mse_loss(model(xs[i:i + BATCH]), ys[i:i + BATCH])
                opt.zero_grad()
                loss.backward()
                opt.step()
                step += 1
            if s % 5 == 0:
                print(f"epoch {epoch} shard {s} step {step} mse {loss.item():.4f}", flush=True)
    del shards
