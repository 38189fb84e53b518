"""Self-play against a window of past snapshots, as in the usual ghost-trainer setting."""
import collections
import copy
import random

import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(17)
random.seed(17)

policy = nn.Sequential(nn.Linear(24, 1100), nn.ReLU(), nn.Linear(1100, 1100), nn.ReLU(), nn.Linear(1100, 5))
opt = torch.optim.SGD(policy.parameters(), lr=0.01, momentum=0.9)
ghosts = collections.deque(maxlen=24)
ghost = copy.deepcopy(policy).requires_grad_(False)
ratings = collections.defaultdict(lambda: 1200.0)

SAVE, SWAP = 40, 15
for step in range(1, 3001):
    board = torch.randn(16, 24)
    mine = Categorical(logits=policy(board))
    with torch.no_grad():
        theirs = Categorical(logits=ghost(board)).sample()
    action = mine.sample()
    outcome = ((action - theirs) % 5 < 2).float() - ((theirs - action) % 5 < 2).float()
    loss = -(mine.log_prob(action) * outcome).mean() - 0.02 * mine.entropy().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    ratings["learner"] += 4 * outcome.mean().item()
    if step % SAVE == 0:
        ghosts.append({k: v.clone() for k, v in policy.state_dict().items()})
    if step % SWAP == 0 and ghosts:
        ghost.load_state_dict(random.choice(ghosts))
    if step % 200 == 0:
        print(f"step {step} rating {ratings['learner']:.0f} snapshots {len(ghosts)}", flush=True)
