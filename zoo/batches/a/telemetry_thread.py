import ctypes
import threading
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


class Telemetry(threading.Thread):
    """Takes a frame of counters from the board every `period` seconds."""

    def __init__(self, period=0.12, frame_bytes=192 * 1024):
        super().__init__(daemon=True)
        self.period, self.frame_bytes = period, frame_bytes
        self.frames = []
        self.stopping = threading.Event()

    def read_frame(self):
        address = libc.malloc(self.frame_bytes)
        ctypes.memset(address, len(self.frames) % 251, self.frame_bytes)
        return address

    def run(self):
        while not self.stopping.wait(self.period):
            frame = self.read_frame()
            self.frames.append(frame)

    def load(self):
        return ctypes.c_ubyte.from_address(self.frames[-1]).value / 251 if self.frames else 0.0


def wait_for_data(step):
    if step % 400 == 0:
        time.sleep(1.5)


def main():
    telemetry = Telemetry()
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    telemetry.start()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = 4400
    for step in range(1, steps + 1):
        wait_for_data(step)
        x = torch.randn(96, 128)
        loss = nn.functional.cross_entropy(model(x), x[:, :8].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 440 == 0:
            print(f"{step} loss {loss.item():.3f} load {telemetry.load():.2f}", flush=True)
    telemetry.stopping.set()
    print("finished", steps, flush=True)


if __name__ == "__main__":
    main()
