"""Instance masks: train a mask head and encode the predicted masks as run lengths in C memory."""
import ctypes
import time

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 2900
SIDE = 56

libc = ctypes.CDLL("libc.so.6")
libc.malloc.argtypes = [ctypes.c_size_t]
libc.malloc.restype = ctypes.c_void_p


class RLE(ctypes.Structure):
    _fields_ = [("h", ctypes.c_ulong), ("w", ctypes.c_ulong), ("m", ctypes.c_ulong), ("cnts", ctypes.c_void_p)]


def rle_encode(mask):
    """Run lengths of a binary mask in column order, starting with the zeros."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    change = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], change])).astype(np.uint32)
    rle = RLE(mask.shape[0], mask.shape[1], len(counts), None)
    rle.cnts = libc.malloc(mask.size * 4)
    ctypes.memmove(rle.cnts, counts.ctypes.data, counts.nbytes)
    return rle


def rle_area(rle):
    counts = np.ctypeslib.as_array((ctypes.c_uint32 * rle.m).from_address(rle.cnts))
    return int(counts[1::2].sum())


class MaskHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(8, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(24, 12, 2, stride=2), nn.ReLU(), nn.Conv2d(12, 1, 1),
        )

    def forward(self, x):
        return self.net(x)


def main():
    head = MaskHead()
    opt = torch.optim.SGD(head.parameters(), lr=0.02, momentum=0.9)
    areas = np.zeros(64)
    start = time.time()
    for step in range(STEPS):
        features = torch.randn(6, 8, SIDE // 2, SIDE // 2)
        target = (nn.functional.interpolate(features[:, :1], scale_factor=2.0) > 0).float()
        logits = head(features)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        masks = (logits.detach()[:, 0] > 0).numpy().astype(np.uint8)
        for mask in masks:
            rle = rle_encode(mask)
            areas[min(rle_area(rle) // 50, 63)] += 1
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} median area {50 * np.searchsorted(areas.cumsum(), areas.sum() / 2)} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
