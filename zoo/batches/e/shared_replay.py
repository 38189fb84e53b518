"""Q-learning with replay from shared memory."""
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(10)
rng = np.random.default_rng(10)
CAPACITY, SHAPE, ACTIONS, STEPS, ACTORS, BATCH = 4800, (4, 84, 84), 4, 2600, 4, 18


class SharedReplay:
    """Observation store that other actors can attach to."""

    def __init__(self):
        self.block = shared_memory.SharedMemory(create=True, size=CAPACITY * int(np.prod(SHAPE)))
        self.observations = np.ndarray((CAPACITY, *SHAPE), np.uint8, buffer=self.block.buf)
        self.actions = np.zeros(CAPACITY, np.int64)
        self.rewards = np.zeros(CAPACITY, np.float32)
        self.added = 0

    def add(self, observation, action, reward):
        slot = self.added % CAPACITY
        self.observations[slot] = observation
        self.actions[slot] = action
        self.rewards[slot] = reward
        self.added += 1

    def sample(self):
        pick = rng.integers(0, min(self.added, CAPACITY) - 1, BATCH)
        now, after = (torch.from_numpy(self.observations[i]).float() / 255 for i in (pick, pick + 1))
        return now, torch.from_numpy(self.actions[pick]), torch.from_numpy(self.rewards[pick]), after

    def close(self):
        del self.observations
        self.block.close()
        self.block.unlink()


def observe():
    frame = np.zeros(SHAPE, np.uint8)
    row, column = rng.integers(0, 64, 2)
    frame[:, row:row + 16, column:column + 16] = rng.integers(64, 256)
    return frame, row + column


network = nn.Sequential(nn.Conv2d(4, 8, 8, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 20 * 20, ACTIONS))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
replay = SharedReplay()
try:
    for step in range(STEPS):
        for _ in range(ACTORS):
            frame, place = observe()
            replay.add(frame, int(rng.integers(0, ACTIONS)), place / 128)
        now, action, reward, after = replay.sample()
        with torch.no_grad():
            wanted = reward + 0.9 * network(after).amax(1)
        loss = nn.functional.smooth_l1_loss(network(now).gather(1, action[:, None]).squeeze(1), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step} stored {min(replay.added, CAPACITY)} loss {loss.item():.4f}")
finally:
    replay.close()
print(f"{STEPS} steps")
