"""Policy gradient on a survival game: the better the agent plays, the longer its episodes, up to the time limit."""
import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(14)

LIMIT = 560


class Survive:
    """The player lives longer as its level rises; the level follows the number of updates."""

    def __init__(self):
        self.level = 0

    def length(self):
        return min(LIMIT, 24 + int(self.level * 0.62) + torch.randint(0, 12, ()).item())

    def frame(self):
        return torch.rand(1, 160, 200)


env = Survive()
policy = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 8, 4, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 19 * 24, 48),
                       nn.ReLU(), nn.Linear(48, 3))
opt = torch.optim.Adam(policy.parameters(), lr=5e-4)

updates = episode = 0
while updates < 2000:
    frames, actions, rewards = [], [], []
    for _ in range(env.length()):
        frame = env.frame()
        with torch.no_grad():
            action = Categorical(logits=policy(frame[None])).sample().item()
        frames.append(frame)
        actions.append(action)
        rewards.append(1.0 if (frame[0, 0, 0] > 0.5) == (action == 1) else 0.0)
    actions = torch.tensor(actions)
    ret = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
    adv = (ret - ret.mean()) / (ret.std() + 1e-6)
    for _ in range(25):
        pick = torch.randint(0, len(frames), (16,))
        dist = Categorical(logits=policy(torch.stack([frames[i] for i in pick.tolist()])))
        loss = -(dist.log_prob(actions[pick]) * adv[pick]).mean() - 0.01 * dist.entropy().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        updates += 1
    env.level = updates
    episode += 1
    if episode % 10 == 0:
        print(f"episode {episode} updates {updates} length {len(frames)} loss {loss.item():.3f}", flush=True)
