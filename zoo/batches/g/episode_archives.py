"""Behaviour cloning from recorded episodes in npz archives that are read one after another."""
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)
STEPS = 3200
ARCHIVES, FRAMES, STEPS_PER_ARCHIVE = 24, 160, 5
OBSERVATION, ACTIONS = 96, 6


def record(folder):
    """Archives with one member for every frame of an episode, as the robot wrote them."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(ARCHIVES):
        frames = rng.standard_normal((FRAMES, OBSERVATION + ACTIONS)).astype(np.float32)
        path = Path(folder, f"episode{number:03d}.npz")
        np.savez(path, **{f"episode{number:03d}_frame{index:05d}": frame for index, frame in enumerate(frames)})
        paths.append(path)
    return paths


class Episodes:
    """Opens an archive at first use of an episode and reads its frames lazily."""

    def __init__(self, paths):
        self.paths = paths
        self.rng = random.Random(1)
        self.archives = []

    def next_episode(self):
        self.archives.append(np.load(self.rng.choice(self.paths)))

    def batch(self, size):
        archive = self.archives[-1]
        frames = np.stack([archive[name] for name in self.rng.sample(archive.files, size)])
        frames = torch.from_numpy(frames)
        return frames[:, :OBSERVATION], frames[:, OBSERVATION:]


def main():
    with tempfile.TemporaryDirectory() as folder:
        episodes = Episodes(record(folder))
        layers = [nn.Linear(OBSERVATION, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, ACTIONS)]
        model = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step in range(STEPS):
            if step % STEPS_PER_ARCHIVE == 0:
                episodes.next_episode()
            observations, actions = episodes.batch(24)
            loss = nn.functional.mse_loss(model(observations), actions)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 200 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
