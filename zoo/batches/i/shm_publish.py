"""Learner that publishes its policy to shared memory for actors to attach by version."""
import os
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

ROUNDS = 150
STEPS_PER_ROUND = 14


class Publisher:
    def __init__(self, run):
        self.run = run
        self.segments = {}

    def publish(self, version, model):
        flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        segment = shared_memory.SharedMemory(name=f"{self.run}_v{version}", create=True, size=flat.nbytes)
        np.ndarray(flat.shape, flat.dtype, buffer=segment.buf)[:] = flat
        self.segments[version] = segment
        return segment.name

    def close(self):
        for segment in self.segments.values():
            segment.close()
            segment.unlink()
        self.segments.clear()


def attach(name, count):
    segment = shared_memory.SharedMemory(name=name)
    view = np.ndarray((count,), np.float32, buffer=segment.buf)
    norm = float(np.sqrt((view * view).sum()))
    del view
    segment.close()
    return norm


def main():
    policy = nn.Sequential(nn.Linear(128, 640), nn.Tanh(), nn.Linear(640, 448), nn.Tanh(), nn.Linear(448, 16))
    count = sum(p.numel() for p in policy.parameters())
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
    publisher = Publisher(f"policy_{os.getpid()}")
    step = 0
    try:
        for version in range(ROUNDS):
            for _ in range(STEPS_PER_ROUND):
                obs = torch.randn(96, 128)
                dist = torch.distributions.Categorical(logits=policy(obs))
                action = dist.sample()
                reward = obs.gather(1, action[:, None]).squeeze(1)
                loss = -(dist.log_prob(action) * (reward - reward.mean())).mean() - 0.01 * dist.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            name = publisher.publish(version, policy)
            if version % 5 == 0:
                print(f"step {step} version {version} reward {reward.mean():.4f} norm {attach(name, count):.2f}", flush=True)
    finally:
        publisher.close()


if __name__ == "__main__":
    main()
