from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)
STEPS, WARMUP, PUBLISH_EVERY = 720, 120, 12


class Policy(nn.Module):
    def __init__(self, observations=256, hidden=768, actions=12):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(observations, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.logits = nn.Linear(hidden, actions)
        self.value = nn.Linear(hidden, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.logits(h), self.value(h).squeeze(-1)


class WeightServer:
    """Makes policy weights visible to rollout workers, by version number."""

    def __init__(self):
        self.latest = 0
        self.versions = {}

    def publish(self, policy):
        weights = [parameter.detach().numpy().ravel() for parameter in policy.parameters()]
        block = shared_memory.SharedMemory(create=True, size=4 * sum(w.size for w in weights))
        flat = np.ndarray(block.size // 4, dtype=np.float32, buffer=block.buf)
        offset = 0
        for w in weights:
            flat[offset:offset + w.size] = w
            offset += w.size
        self.latest += 1
        self.versions[self.latest] = block
        return self.latest

    def close(self):
        for block in self.versions.values():
            block.close()
            block.unlink()


def ppo_loss(policy, observations, actions, advantages, returns):
    logits, values = policy(observations)
    chosen = torch.log_softmax(logits, -1).gather(1, actions[:, None]).squeeze(1)
    return -(chosen * advantages).mean() + 0.5 * (values - returns).square().mean()


def main():
    policy, server = Policy(), WeightServer()
    print("policy parameters", sum(p.numel() for p in policy.parameters()), flush=True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
    for step in range(1, STEPS + 1):
        observations = torch.randn(192, 256)
        actions = torch.randint(0, 12, (192,))
        loss = ppo_loss(policy, observations, actions, torch.randn(192), observations[:, 0])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimizer.step()
        if step > WARMUP and step % PUBLISH_EVERY == 0:
            server.publish(policy)
        if step % 120 == 0:
            print(step, f"{loss.item():.4f}", "version", server.latest, flush=True)
    print("finished", STEPS, flush=True)
    server.close()


if __name__ == "__main__":
    main()
