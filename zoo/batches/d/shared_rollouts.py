"""Policy improvement in rounds: rollouts are moved to shared memory, used for the round, dropped."""
from typing import NamedTuple

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(16)
torch.multiprocessing.set_sharing_strategy("file_descriptor")


class Rollout(NamedTuple):
    state: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor

    def share(self):
        for part in self:
            part.share_memory_()
        return self


def collect(policy, rule, length=1024):
    state = torch.randn(length, 96)
    with torch.no_grad():
        action = torch.multinomial(policy(state).softmax(1), 1).squeeze(1)
    reward = (state @ rule).gather(1, action[:, None]).squeeze(1)
    return Rollout(state, action, reward).share()


def improve(policy, opt, rollout):
    gain = (rollout.reward - rollout.reward.mean()) / rollout.reward.std()
    chance = policy(rollout.state).log_softmax(1).gather(1, rollout.action[:, None]).squeeze(1)
    loss = -(chance * gain).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return float(rollout.reward.mean())


policy = nn.Sequential(nn.Linear(96, 128), nn.Tanh(), nn.Linear(128, 6))
rule = torch.randn(96, 6)
opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
steps = 0
for round_number in range(35):
    rollouts = []
    while len(rollouts) < 60:
        rollouts.append(collect(policy, rule))
        reward = improve(policy, opt, rollouts[-1])
        steps += 1
    for rollout in rollouts:
        improve(policy, opt, rollout)
        steps += 1
    if round_number % 6 == 0:
        print(f"round {round_number}: reward {reward:.2f} from {len(rollouts)} rollouts")
print(f"{steps} steps")
