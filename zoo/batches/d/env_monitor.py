"""REINFORCE on a toy grid whose environment lives in a child process behind a pipe."""
import multiprocessing as mp

import numpy as np
import torch
from torch import nn


class Grid:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.goal = int(self.rng.integers(4))
        return self.observe()

    def observe(self):
        frame = self.rng.standard_normal((16, 16), dtype=np.float32)
        frame[8 * (self.goal // 2):][:8, 8 * (self.goal % 2):][:, :8] += 1.0
        return frame

    def step(self, action):
        reward = float(action == self.goal)
        return self.reset(), reward


class Monitor:
    """Records what happened for a video that may be asked for later."""
    def __init__(self, env):
        self.env, self.history = env, []

    def step(self, action):
        frame, reward = self.env.step(action)
        self.history.append((frame, action, reward))
        return frame, reward


def serve(pipe, seed):
    torch.set_num_threads(1)
    env = Monitor(Grid(seed))
    pipe.send(env.env.reset())
    while (action := pipe.recv()) is not None:
        pipe.send(env.step(action))


def main(updates=2400, horizon=16):
    torch.set_num_threads(1)
    torch.manual_seed(2)
    ours, theirs = mp.get_context("fork").Pipe()
    child = mp.get_context("fork").Process(target=serve, args=(theirs, 5), daemon=True)
    child.start()
    policy = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.Tanh(), nn.Linear(64, 4))
    opt = torch.optim.Adam(policy.parameters(), lr=3e-3)
    frame = ours.recv()
    for update in range(1, updates + 1):
        chosen, gained = [], []
        for _ in range(horizon):
            dist = torch.distributions.Categorical(logits=policy(torch.from_numpy(frame)[None]))
            action = dist.sample()
            ours.send(int(action))
            frame, reward = ours.recv()
            chosen.append(dist.log_prob(action))
            gained.append(reward)
        gain = torch.tensor(gained)
        loss = -(torch.cat(chosen) * (gain - gain.mean())).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    ours.send(None)
    print(f"{updates} steps")


if __name__ == "__main__":
    main()
