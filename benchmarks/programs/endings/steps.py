"""A few steps of training, and then an end of the kind that is named first on the command line."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

MEGABYTES = 1 << 20
DEVICE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)


def train(steps: int = 30) -> None:
    """Take some steps, long enough to be seen."""
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).sum().backward()
        optimizer.step()
        time.sleep(0.01)


class Rows(Dataset):
    """Rows that keep what they make in a loader's worker, or are too large for shared memory, or end the worker."""

    def __init__(self, how: str) -> None:
        self.how, self.kept = how, []

    def __len__(self) -> int:
        return 4000

    def __getitem__(self, number: int) -> torch.Tensor:
        if self.how == "keeps":
            self.kept.append(bytearray(b"x") * MEGABYTES)
        elif self.how == "killed" and number > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(4 * MEGABYTES if self.how == "large" else 8)


def load(how: str) -> None:
    """Read rows by one worker."""
    for number, _ in enumerate(DataLoader(Rows(how), batch_size=4, num_workers=1)):
        if number % 10 == 0:
            train(1)


def grow() -> None:
    """Keep more and more."""
    kept = []
    while True:
        kept.append(torch.ones(MEGABYTES // 4))
        train(1)


def fill_shared_memory() -> None:
    """Write into shared memory until there is no page left."""
    import mmap

    file = os.open("/dev/shm/fill", os.O_RDWR | os.O_CREAT)
    os.unlink("/dev/shm/fill")
    os.ftruncate(file, 1 << 30)
    pages = mmap.mmap(file, 1 << 30)
    for at in range(0, 1 << 30, 4096):
        pages[at] = 1
        if at % MEGABYTES == 0:
            time.sleep(0.02)


def fill_addresses() -> None:
    """Take all of the address space that is allowed, and abort as C++ does."""
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * MEGABYTES,) * 2)
    libc, kept = ctypes.CDLL(None), 0
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_size_t] * 5]
    while libc.mmap(None, MEGABYTES, 3, 34, 2**64 - 1, 0) != 2**64 - 1:
        kept += 1
    time.sleep(0.5)
    os.abort()


def child(how: str) -> None:
    """Let another process need more than there is."""
    code = f"kept = []\nwhile True: kept.append(bytearray(b'x') * {MEGABYTES})"
    if how == "subprocess":
        subprocess.run([sys.executable, "-c", code], check=True)
    else:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(1) as pool:
            pool.submit(exec, code).result()


def rank(number: int) -> None:
    """One of two ranks, which keeps more and more."""
    if number == 1:
        grow()
    time.sleep(60)


def ranks() -> None:
    """Start two."""
    import torch.multiprocessing

    torch.multiprocessing.spawn(rank, nprocs=2)


def open_files() -> None:
    """Open more files than are allowed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    kept = [open(os.devnull) for _ in range(1000)]
    print(len(kept))


ENDS = {
    "grow": grow,
    "worker grows": lambda: load("keeps"),
    "pool grows": lambda: child("pool"),
    "subprocess grows": lambda: child("subprocess"),
    "rank grows": ranks,
    "MemoryError": lambda: bytearray(1 << 60),
    "CPU allocator": lambda: torch.empty(1 << 55),
    "address space": fill_addresses,
    "CUDA": lambda: (_ for _ in ()).throw(torch.OutOfMemoryError(DEVICE)),
    "SIGBUS": fill_shared_memory,
    "worker's bus error": lambda: load("large"),
    "open files": open_files,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "error": lambda: [][1],
    "exit 137": lambda: sys.exit(137),
    "interrupted": lambda: (
        signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background job ignores it
        os.kill(os.getpid(), signal.SIGINT),
    ),
    "worker killed": lambda: load("killed"),
    "well": lambda: None,
}

if __name__ == "__main__":
    train()
    ENDS[sys.argv[1]]()
