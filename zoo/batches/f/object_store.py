"""Learner that reads trajectory fragments from a shared-memory object store."""
import atexit
from collections import OrderedDict
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)
STEPS = 3700
CAPACITY = 44 * 1024 * 1024


class ObjectStore:
    def __init__(self, capacity):
        self.capacity, self.used = capacity, 0
        self.objects = OrderedDict()
        self.counter = 0
        atexit.register(self.clear)

    def put(self, array):
        while self.used + array.nbytes > self.capacity:
            self.evict()
        block = shared_memory.SharedMemory(create=True, size=array.nbytes)
        np.ndarray(array.shape, array.dtype, buffer=block.buf)[:] = array
        ref, self.counter = self.counter, self.counter + 1
        self.objects[ref] = (block, array.shape, array.nbytes)
        self.used += array.nbytes
        return ref

    def get(self, ref):
        block, shape, _ = self.objects[ref]
        self.objects.move_to_end(ref)
        return np.ndarray(shape, np.float32, buffer=block.buf).copy()

    def evict(self):
        _, (block, _, size) = self.objects.popitem(last=False)
        block.close()
        block.unlink()
        self.used -= size

    def clear(self):
        while self.objects:
            self.evict()


def main():
    rng = np.random.default_rng(4)
    store = ObjectStore(CAPACITY)
    net = nn.Sequential(nn.Linear(64, 288), nn.ReLU(), nn.Linear(288, 288), nn.ReLU(), nn.Linear(288, 2))
    opt = torch.optim.Adam(net.parameters(), lr=5e-4)
    for step in range(STEPS):
        if step % 8 == 0:
            store.put(rng.standard_normal((1000, 66), dtype=np.float32))
        refs = list(store.objects)
        fragment = store.get(refs[int(rng.integers(len(refs)))])
        rows = torch.from_numpy(fragment[rng.integers(0, 1000, size=224)])
        states, goals = rows[:, :64], rows[:, 64:] * 0.1 + rows[:, :2]
        loss = nn.functional.mse_loss(net(states), goals)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.4f} objects {len(store.objects)} used {store.used >> 20} MiB")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
