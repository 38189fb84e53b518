"""Actor/learner in one box: the learner publishes its weights in shared memory for late actors."""
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(3)

STEPS, PUBLISH_EVERY = 4400, 44


class WeightServer:
    def __init__(self):
        self.version = 0
        self.segments = {}

    def publish(self, model):
        flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        self.version += 1
        shm = shared_memory.SharedMemory(create=True, size=flat.nbytes)
        np.ndarray(flat.shape, flat.dtype, buffer=shm.buf)[:] = flat
        self.segments[self.version] = shm
        return self.version

    def fetch(self, version, n):
        return np.ndarray((n,), np.float32, buffer=self.segments[version].buf).copy()

    def close(self):
        for shm in self.segments.values():
            shm.close()
            shm.unlink()


def main():
    policy = nn.Sequential(nn.Linear(64, 640), nn.Tanh(), nn.Linear(640, 960), nn.Tanh(), nn.Linear(960, 8))
    n = sum(p.numel() for p in policy.parameters())
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-3, momentum=0.9)
    server = WeightServer()
    actor = torch.from_numpy(server.fetch(server.publish(policy), n))
    for step in range(1, STEPS + 1):
        obs = torch.randn(48, 64)
        adv = obs[:, :8].softmax(-1)
        loss = nn.functional.cross_entropy(policy(obs), adv)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % PUBLISH_EVERY == 0:
            actor = torch.from_numpy(server.fetch(server.publish(policy), n))
        if step % 440 == 0:
            print(f"step {step} loss {loss.item():.4f} version {server.version} |w| {actor.norm():.2f}", flush=True)
    server.close()


if __name__ == "__main__":
    main()
