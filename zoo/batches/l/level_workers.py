"""PPO-style training on procedurally generated levels; the workers build a level when they first meet it."""
import multiprocessing as mp

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

torch.set_num_threads(1)
torch.manual_seed(15)
ctx = mp.get_context("fork")
LEVELS = 36


class LevelEnv:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.levels = {}
        self.tier = 4

    def reset(self):
        number = int(self.rng.integers(0, self.tier))
        if number not in self.levels:
            gen = np.random.default_rng(number)
            self.levels[number] = gen.random((512, 512), dtype=np.float32)
        self.map = self.levels[number]
        self.y, self.x, self.t = 256, 256, 0
        return self.view()

    def view(self):
        return self.map[self.y - 5:self.y + 5, self.x - 5:self.x + 5].ravel()

    def step(self, action):
        dy, dx = ((1, 0), (-1, 0), (0, 1), (0, -1))[action]
        self.y, self.x = int(np.clip(self.y + dy, 5, 506)), int(np.clip(self.x + dx, 5, 506))
        self.t += 1
        reward, done = float(self.map[self.y, self.x]), self.t >= 12
        return (self.reset() if done else self.view()), reward, done


def worker(conn, seed):
    env = LevelEnv(seed)
    while True:
        cmd, arg = conn.recv()
        if cmd == "tier":
            env.tier = arg
            conn.send(env.reset())
        elif cmd == "step":
            conn.send(env.step(arg))
        else:
            return


pipes, procs = [], []
for i in range(3):
    ours, theirs = ctx.Pipe()
    procs.append(ctx.Process(target=worker, args=(theirs, i), daemon=True))
    procs[-1].start()
    pipes.append(ours)


def ask(cmd, args):
    for p, a in zip(pipes, args):
        p.send((cmd, a))
    return [p.recv() for p in pipes]


net = nn.Sequential(nn.Linear(100, 192), nn.Tanh(), nn.Linear(192, 192), nn.Tanh(), nn.Linear(192, 5))
opt = torch.optim.Adam(net.parameters(), lr=5e-4)
obs = torch.from_numpy(np.stack(ask("tier", [4] * 3)))
tier = 4
for update in range(1, 2001):
    if update % 26 == 0 and tier < LEVELS:
        tier += 1
        obs = torch.from_numpy(np.stack(ask("tier", [tier] * 3)))
    logps, vals, rews = [], [], []
    for _ in range(10):
        out = net(obs)
        dist = Categorical(logits=out[:, :4])
        act = dist.sample()
        nxt, rew, _ = zip(*ask("step", act.tolist()))
        logps.append(dist.log_prob(act))
        vals.append(out[:, 4])
        rews.append(torch.tensor(rew))
        obs = torch.from_numpy(np.stack(nxt))
    ret = torch.stack(rews).flip(0).cumsum(0).flip(0)
    adv = ret - torch.stack(vals)
    loss = -(torch.stack(logps) * adv.detach()).mean() + 0.5 * adv.pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if update % 200 == 0:
        print(f"update {update} levels {tier} loss {loss.item():.3f}", flush=True)
for p in pipes:
    p.send(("close", None))
