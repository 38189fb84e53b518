"""League self-play: every generation the policy is frozen to disk and past ones come back as opponents."""
import os
import random
import tempfile

import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(4)
random.seed(4)


def make_policy():
    return nn.Sequential(nn.Linear(32, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 6))


class League:
    def __init__(self, folder):
        self.folder = folder
        self.members = {}

    def freeze(self, policy, generation):
        path = os.path.join(self.folder, f"gen{generation:04d}.pt")
        torch.save(policy.state_dict(), path)
        return path

    def add(self, path, generation):
        with torch.device("meta"):
            member = make_policy()
        weights = torch.load(path, mmap=True, map_location="cpu")
        member.load_state_dict(weights, assign=True)
        self.members[generation] = member.eval()

    def sample(self):
        newest = max(self.members)
        return self.members[newest if random.random() < 0.5 else random.choice(list(self.members))]


def play(policy, opponent, n=16):
    state = torch.randn(n, 32)
    mine = Categorical(logits=policy(state))
    with torch.no_grad():
        theirs = Categorical(logits=opponent(state)).sample()
    action = mine.sample()
    win = ((action - theirs) % 6 == 1).float() - ((theirs - action) % 6 == 1).float()
    return -(mine.log_prob(action) * win).mean() - 0.01 * mine.entropy().mean(), win.mean().item()


with tempfile.TemporaryDirectory(prefix="league-") as folder:
    league = League(folder)
    policy = make_policy()
    opt = torch.optim.SGD(policy.parameters(), lr=0.02)
    league.add(league.freeze(policy, 0), 0)
    for step in range(1, 2401):
        loss, win = play(policy, league.sample())
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 40 == 0:
            league.add(league.freeze(policy, step // 40), step // 40)
        if step % 240 == 0:
            print(f"step {step} win rate {win:+.2f} league of {len(league.members)}", flush=True)
