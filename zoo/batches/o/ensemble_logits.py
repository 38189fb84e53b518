"""Binary segmentation; soft predictions of the validation set are stored for later ensembling."""
import os
import tempfile

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(5)

ROUNDS = 24
STEPS_PER_ROUND = 45
N_VAL = 40
SIZE = 224


class SegNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 12, 3, padding=2, dilation=2)
        self.c = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


def scenes(n, size, g):
    x = torch.randn(n, 1, size, size, generator=g) * 0.7
    m = torch.zeros(n, size, size, dtype=torch.long)
    for i in range(n):
        y0, x0 = torch.randint(0, size // 2, (2,), generator=g).tolist()
        m[i, y0:y0 + size // 3, x0:x0 + size // 3] = 1
    return x + m[:, None].float(), m


class Ensemble:
    def __init__(self, root):
        self.root = root
        self.members = {}

    def writer(self, round_no):
        path = os.path.join(self.root, f"softmax_{round_no:03d}.npy")
        store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(N_VAL, 2, SIZE, SIZE))
        self.members[round_no] = store
        return store


def main():
    g = torch.Generator().manual_seed(0)
    net = SegNet()
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    with tempfile.TemporaryDirectory() as root:
        ensemble = Ensemble(root)
        for round_no in range(ROUNDS):
            for _ in range(STEPS_PER_ROUND):
                x, m = scenes(4, 64, g)
                loss = F.cross_entropy(net(x), m)
                opt.zero_grad()
                loss.backward()
                opt.step()
            out = ensemble.writer(round_no)
            dice = 0.0
            with torch.no_grad():
                for i in range(N_VAL):
                    x, m = scenes(1, SIZE, g)
                    p = net(x).softmax(1)
                    out[i] = p[0].numpy()
                    hit = (p.argmax(1) * m).sum()
                    dice += float(2 * hit / (p.argmax(1).sum() + m.sum()).clamp(min=1))
            out.flush()
            print(f"round {round_no} loss {loss.item():.3f} dice {dice / N_VAL:.3f}", flush=True)


if __name__ == "__main__":
    main()
