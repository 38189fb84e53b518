"""An actor process writes frames into a shared-memory ring; the learner samples from it."""
import multiprocessing as mp
from multiprocessing import shared_memory
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

SLOTS, FRAME = 4000, (48, 64)  # float32 frames, 12 kB a slot, about 49 MB in all
STEPS, PER_STEP = 3400, 2


def ring_view(shm):
    return np.ndarray((SLOTS, *FRAME), dtype=np.float32, buffer=shm.buf)


def actor(name, permits, written):
    """Writes one frame for every permit, oldest slots are overwritten."""
    shm = shared_memory.SharedMemory(name=name)
    ring = ring_view(shm)
    rng = np.random.default_rng(16)
    x = np.linspace(0, 6.28, FRAME[1], dtype=np.float32)
    for n in range(STEPS * PER_STEP):
        permits.acquire()
        phase = rng.uniform(0, 6.28)
        ring[n % SLOTS] = np.sin(x + phase) + 0.1 * rng.standard_normal(FRAME, dtype=np.float32)
        written.release()
    del ring
    shm.close()


def learn(ring, permits, written):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(FRAME[0] * FRAME[1], 64), nn.ReLU(),
                            nn.Linear(64, 16))
    decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, FRAME[0] * FRAME[1]))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    rng = np.random.default_rng(17)
    available = 0
    for step in range(1, STEPS + 1):
        for _ in range(PER_STEP):
            permits.release()
        for _ in range(PER_STEP):
            written.acquire()
        available = min(SLOTS, available + PER_STEP)
        pick = rng.integers(0, available, 16)
        x = torch.from_numpy(ring[pick])
        loss = F.mse_loss(decoder(encoder(x)), x.flatten(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 400 == 0:
            print(f"step {step}: {available} frames in the ring, loss {loss.item():.4f}")


def main():
    torch.set_num_threads(1)
    torch.manual_seed(16)
    shm = shared_memory.SharedMemory(create=True, size=SLOTS * FRAME[0] * FRAME[1] * 4)
    ctx = mp.get_context("fork")
    permits, written = ctx.Semaphore(0), ctx.Semaphore(0)
    process = ctx.Process(target=actor, args=(shm.name, permits, written), daemon=True)
    process.start()
    try:
        learn(ring_view(shm), permits, written)
        process.join()
    finally:
        shm.close()
        shm.unlink()
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
