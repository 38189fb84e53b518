"""Denoising of sinogram blocks: each block is staged in a store that cleans up after itself."""
import weakref

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(7)


class BlockStore:
    """Staging area of one block of projections; frees its scratch file when it goes away."""

    def __init__(self, index, height=128, width=160, angles=28):
        self.index = index
        self.is_open = True
        angle = torch.linspace(0, 3.1416, angles)[:, None, None]
        row = torch.linspace(-1, 1, height)[None, :, None]
        col = torch.linspace(-1, 1, width)[None, None, :]
        self.block = torch.exp(-8 * (col - 0.5 * torch.cos(angle + index * 0.01)) ** 2 - row ** 2)
        self._finalizer = weakref.finalize(self, self.finalize)

    def finalize(self):
        self.is_open = False

    def patches(self, n, size=32):
        for _ in range(n):
            a = torch.randint(0, self.block.shape[0] - 8, ())
            y = torch.randint(0, self.block.shape[1] - size, ())
            x = torch.randint(0, self.block.shape[2] - size, ())
            yield self.block[a:a + 8, None, y:y + size, x:x + size]


net = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
                    nn.Conv2d(24, 1, 3, padding=1))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)

step = 0
for index in range(110):
    store = BlockStore(index)
    for clean in store.patches(20):
        noisy = clean + 0.2 * torch.randn_like(clean)
        loss = nn.functional.mse_loss(net(noisy), clean)
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
    if index % 10 == 9:
        print(f"block {index + 1} step {step} loss {loss.item():.5f}", flush=True)
