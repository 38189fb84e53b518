"""Train a small image classifier from one big tar shard, read front to back."""
import io
import multiprocessing as mp
import os
import random
import tarfile
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, BATCH, SIDE = 3600, 16, 16
WORDS = "a photo of the small old red dog cat house street tree boat near lake with people and sky".split()


def write_shard(path, count):
    rng = random.Random(1)
    gen = np.random.default_rng(1)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(count):
            pixels = gen.integers(0, 255, SIDE * SIDE, dtype=np.uint8).tobytes()
            info = tarfile.TarInfo(f"{i:08d}.label{i % 10}.bin")
            info.size = len(pixels)
            info.pax_headers = {"caption": " ".join(rng.choices(WORDS, k=60))}
            tar.addfile(info, io.BytesIO(pixels))


def samples(path):
    tar = tarfile.open(path, "r|")
    for member in tar:
        raw = tar.extractfile(member).read()
        pixels = np.frombuffer(raw, dtype=np.uint8).astype(np.float32) / 255
        label = int(member.name.split("label")[1][0])
        yield pixels, label, len(member.pax_headers["caption"])


def batches(path):
    rows = []
    for row in samples(path):
        rows.append(row)
        if len(rows) == BATCH:
            x, y, n = zip(*rows)
            yield torch.from_numpy(np.stack(x)), torch.tensor(y), torch.tensor(n, dtype=torch.float32)
            rows = []


def main():
    folder = tempfile.TemporaryDirectory()
    shard = os.path.join(folder.name, "train-000000.tar")
    writer = mp.get_context("fork").Process(target=write_shard, args=(shard, STEPS * BATCH))
    writer.start()
    writer.join()
    net = nn.Sequential(nn.Linear(SIDE * SIDE + 1, 640), nn.GELU(), nn.Linear(640, 640), nn.GELU(), nn.Linear(640, 10))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-4)
    for step, (x, y, n) in enumerate(batches(shard), 1):
        x = torch.cat([x, n[:, None] / 400], 1)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    folder.cleanup()


if __name__ == "__main__":
    main()
