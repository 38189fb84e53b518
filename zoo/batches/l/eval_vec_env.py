"""Actor-critic with a vectorised environment in child processes; a fresh one is made for every evaluation."""
import multiprocessing as mp

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(3)
ctx = mp.get_context("fork")


class Balance:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.noise = self.rng.standard_normal((600_000,)).astype("float32")

    def reset(self):
        self.state, self.t = self.rng.standard_normal(8).astype("float32") * 0.1, 0
        return self.state

    def step(self, action):
        self.t += 1
        push = np.zeros(8, "float32")
        push[action % 8] = 0.1
        k = self.rng.integers(0, len(self.noise) - 8)
        self.state = self.state * 0.97 + push + 0.05 * self.noise[k:k + 8]
        done = self.t >= 50 or np.abs(self.state).max() > 3
        reward = -float(np.abs(self.state).mean())
        return (self.reset() if done else self.state), reward, done


def worker(remote, seed):
    env = Balance(seed)
    while True:
        cmd, data = remote.recv()
        if cmd == "reset":
            remote.send(env.reset())
        elif cmd == "step":
            remote.send(env.step(data))
        else:
            break


class SubprocVec:
    def __init__(self, seeds):
        self.remotes, self.processes = [], []
        for seed in seeds:
            ours, theirs = ctx.Pipe()
            proc = ctx.Process(target=worker, args=(theirs, seed), daemon=True)
            proc.start()
            theirs.close()
            self.remotes.append(ours)
            self.processes.append(proc)

    def reset(self):
        for r in self.remotes:
            r.send(("reset", None))
        return torch.from_numpy(np.stack([r.recv() for r in self.remotes]))

    def step(self, actions):
        for r, a in zip(self.remotes, actions):
            r.send(("step", int(a)))
        obs, rew, done = zip(*[r.recv() for r in self.remotes])
        return torch.from_numpy(np.stack(obs)), torch.tensor(rew), torch.tensor(done)


actor = nn.Sequential(nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 9))
opt = torch.optim.Adam(actor.parameters(), lr=1e-3)


def evaluate(update):
    envs = SubprocVec([10_000 + update, 20_000 + update])
    obs, total = envs.reset(), 0.0
    with torch.no_grad():
        for _ in range(40):
            obs, reward, _ = envs.step(actor(obs)[:, :8].argmax(-1))
            total += reward.mean().item()
    return total


train_envs = SubprocVec([0, 1])
obs = train_envs.reset()
for update in range(1, 1601):
    logps, rewards, values = [], [], []
    for _ in range(8):
        out = actor(obs)
        dist = Categorical(logits=out[:, :8])
        action = dist.sample()
        obs, reward, _ = train_envs.step(action)
        logps.append(dist.log_prob(action))
        values.append(out[:, 8])
        rewards.append(reward)
    ret = torch.stack(rewards).flip(0).cumsum(0).flip(0)
    adv = ret - torch.stack(values)
    loss = -(torch.stack(logps) * adv.detach()).mean() + 0.5 * adv.pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if update % 80 == 0:
        print(f"update {update} loss {loss.item():.3f} eval {evaluate(update):.2f}", flush=True)
