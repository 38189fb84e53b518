import ctypes

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


class FilterBanks:
    """Triangular filters for a spectrum of n bins, kept in C memory for the DSP routines."""

    def __init__(self, n_filters=6):
        self.n_filters = n_filters
        self.tables = {}

    def _build(self, n_bins):
        grid = np.arange(n_bins, dtype=np.float32)[None]
        centre = np.linspace(1, n_bins - 1, self.n_filters, dtype=np.float32)[:, None]
        width = n_bins / self.n_filters
        return np.ascontiguousarray(np.clip(1 - np.abs(grid - centre) / width, 0, None))

    def get(self, n_bins):
        if n_bins not in self.tables:
            table = self._build(n_bins)
            address = libc.malloc(table.nbytes)
            ctypes.memmove(address, table.ctypes.data, table.nbytes)
            self.tables[n_bins] = address
        pointer = ctypes.cast(self.tables[n_bins], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(self.n_filters, n_bins))


class KeywordNet(nn.Module):
    def __init__(self, n_filters, classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_filters, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU())
        self.head = nn.Linear(128, classes)

    def forward(self, x):
        return self.head(self.body(x))


rng = np.random.default_rng(5)
banks = FilterBanks()
model = KeywordNet(banks.n_filters)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1, 1301):
    length = int(rng.integers(4000, 11000))
    waves = rng.standard_normal((24, length), dtype=np.float32)
    power = np.abs(np.fft.rfft(waves, axis=1)).astype(np.float32)
    features = np.log1p(power @ banks.get(power.shape[1]).T)
    labels = torch.from_numpy(rng.integers(0, 10, 24))
    loss = nn.functional.cross_entropy(model(torch.from_numpy(features)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step} loss {loss.item():.4f} last clip {length} samples")
print(f"trained for {step} steps")
