"""Volumes segmented patch by patch; the softmax of each validation case goes to an .npy file."""
import os
import tempfile
import time

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 1000
CASE_EVERY = 20
CLASSES = 4
SHAPE = (48, 80, 80)


class VoxelNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, CLASSES, 3, padding=1))

    def forward(self, x):
        return self.body(x)


class CaseExporter:
    """Big softmax volumes go through .npy files instead of pipes."""

    def __init__(self, root):
        self.root = root
        self.volumes = {}

    @torch.no_grad()
    def predict(self, net, case):
        path = os.path.join(self.root, f"{case}.npy")
        volume = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(CLASSES, *SHAPE))
        for z in range(0, SHAPE[0], 4):
            patch = torch.randn(1, 1, 4, SHAPE[1], SHAPE[2])
            volume[:, z:z + 4] = net(patch)[0].softmax(0).numpy()
        volume.flush()
        self.volumes[case] = volume
        return float(volume[1:].mean())


def main():
    folder = tempfile.TemporaryDirectory()
    net = VoxelNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    exporter = CaseExporter(folder.name)
    start = time.time()
    for step in range(STEPS):
        patch = torch.randn(1, 1, 12, 20, 20)
        target = (patch[:, 0] > 0).long() + 2 * (patch[:, 0] > 1).long()
        target.clamp_(max=CLASSES - 1)
        loss = nn.functional.cross_entropy(net(patch), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % CASE_EVERY == CASE_EVERY - 1:
            share = exporter.predict(net, f"case_{step // CASE_EVERY:03d}")
            if step % 100 == 99:
                print(f"step {step} loss {loss.item():.3f} foreground {share:.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
