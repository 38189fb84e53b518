"""Rollout-style training with the cyclic collector run by hand to avoid pauses."""
import gc

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)
STEPS = 3500
COLLECT_EVERY = 800


class Rollout:
    def __init__(self, policy, horizon=120):
        self.states = torch.randn(horizon, 128)
        self.noise = torch.randn(horizon, 64)
        self.policy = policy
        self.callbacks = {"advantage": self.advantage, "entropy": self.entropy}

    def advantage(self, values):
        reward = self.states[:, :8].sum(1) + self.noise[:, 0]
        return (reward - values.detach() - reward.mean()) / (reward.std() + 1e-6)

    def entropy(self, logits):
        p = torch.softmax(logits, -1)
        return -(p * torch.log_softmax(logits, -1)).sum(-1).mean()


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh())
        self.pi = nn.Linear(256, 6)
        self.v = nn.Linear(256, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.pi(h), self.v(h).squeeze(-1)


def main():
    gc.disable()
    net = ActorCritic()
    opt = torch.optim.Adam(net.parameters(), lr=3e-4)
    for step in range(1, STEPS + 1):
        rollout = Rollout(net)
        logits, values = net(rollout.states)
        actions = torch.distributions.Categorical(logits=logits.detach()).sample()
        logp = torch.log_softmax(logits, -1).gather(1, actions.unsqueeze(1)).squeeze(1)
        adv = rollout.callbacks["advantage"](values)
        returns = adv + values.detach()
        loss = -(logp * adv).mean() + 0.5 * (values - returns).pow(2).mean() - 0.01 * rollout.callbacks["entropy"](logits)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % COLLECT_EVERY == 0:
            gc.collect()
            print(f"step {step} loss {loss.item():.4f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
