from multiprocessing import shared_memory

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(21)


class Publisher:
    """Puts the learner's weights where actors on this host can map them by version number."""

    def __init__(self, prefix="weights"):
        self.prefix = prefix
        self.versions = {}
        self.version = 0

    def publish(self, module):
        flat = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
        block = shared_memory.SharedMemory(create=True, size=flat.nbytes)
        np.ndarray(flat.shape, flat.dtype, buffer=block.buf)[:] = flat
        self.version += 1
        self.versions[self.version] = block
        return self.version

    def read(self, version):
        return np.frombuffer(self.versions[version].buf, dtype=np.float32).copy()

    def shutdown(self):
        for block in self.versions.values():
            block.close()
            block.unlink()


class Policy(nn.Module):
    def __init__(self, observation=48, width=384, actions=9):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observation, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.logits, self.value = nn.Linear(width, actions), nn.Linear(width, 1)

    def forward(self, x):
        h = self.body(x)
        return self.logits(h), self.value(h).squeeze(-1)


def fake_experience(n=256):
    obs = torch.randn(n, 48)
    return obs, obs[:, :9].argmax(1), obs.pow(2).mean(1)


policy, publisher = Policy(), Publisher()
optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
for step in range(1, 67):
    optimizer.zero_grad()
    for _ in range(60):
        obs, expert, returns = fake_experience()
        logits, value = policy(obs)
        loss = nn.functional.cross_entropy(logits, expert) + (value - returns).pow(2).mean()
        (loss / 60).backward()
    optimizer.step()
    version = publisher.publish(policy)
    if step % 6 == 0:
        drift = np.abs(publisher.read(version)).mean()
        print(f"version {version} loss {loss.item():.4f} mean weight {drift:.5f}")
print(f"learner stopped after {step} steps")
publisher.shutdown()
