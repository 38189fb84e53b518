import gc

import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(13)
EPISODES, COLLECT_EVERY = 900, 60


class Transition:
    def __init__(self, episode, observation, log_prob, reward):
        self.episode = episode
        self.observation = observation
        self.log_prob = log_prob
        self.reward = reward

    def return_to_go(self, gamma):
        later = self.episode.transitions[self.episode.transitions.index(self):]
        return sum(gamma ** k * t.reward for k, t in enumerate(later))


class Episode:
    def __init__(self, longest=256):
        self.transitions = []
        self.frames = torch.empty(longest, 3, 112, 112)

    def record(self, observation, log_prob, reward):
        frame = self.frames[len(self.transitions)].copy_(observation)
        self.transitions.append(Transition(self, frame, log_prob, reward))


class GridWorld:
    """Observation is a rendered 3 x 112 x 112 picture of the position."""

    def reset(self):
        self.x = self.y = 56
        return self.render()

    def render(self):
        picture = torch.zeros(3, 112, 112)
        picture[0, self.y % 112, self.x % 112] = 1.0
        return picture

    def step(self, action):
        self.x += (0, 0, 1, -1)[action]
        self.y += (1, -1, 0, 0)[action]
        return self.render(), 1.0 - 0.05 * (abs(self.x - 62) + abs(self.y - 62))


def play(env, policy, length=14):
    episode, observation = Episode(), env.reset()
    for _ in range(length):
        choice = Categorical(logits=policy(observation[None]))
        action = choice.sample()
        following, reward = env.step(int(action))
        episode.record(observation, choice.log_prob(action), reward)
        observation = following
    return episode


def main():
    env = GridWorld()
    policy = nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(768, 64), nn.Tanh(), nn.Linear(64, 4))
    print("policy", sum(p.numel() for p in policy.parameters()), flush=True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    average = 0.0
    gc.collect()
    gc.disable()
    for number in range(1, EPISODES + 1):
        episode = play(env, policy)
        returns = torch.tensor([t.return_to_go(0.97) for t in episode.transitions])
        average += 0.02 * (float(returns[0]) - average)
        loss = -(torch.cat([t.log_prob for t in episode.transitions]) * (returns - returns.mean())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % COLLECT_EVERY == 0:
            gc.collect()
        if number % 200 == 0:
            print("episode", number, f"return {average:.3f}", flush=True)
    print("finished", EPISODES, flush=True)


if __name__ == "__main__":
    main()
