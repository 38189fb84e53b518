"""Actor-critic on two environment processes, each steps a small pole simulator."""
import multiprocessing as mp
import time

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)


class Pole:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def render(self):
        frame = np.zeros((64, 96), dtype=np.uint8)
        col = int(np.clip(48 + 20 * self.state[0], 1, 94))
        frame[50:54, col - 1:col + 2] = 255
        return frame

    def reset(self):
        self.state = self.rng.uniform(-0.05, 0.05, 4)
        return self.state.astype(np.float32)

    def step(self, action):
        x, v, a, w = self.state
        force = 10.0 if action else -10.0
        acc_w = (9.8 * np.sin(a) - 0.9 * force * np.cos(a) / 1.1) / 0.6
        acc = force / 1.1 - 0.05 * acc_w * np.cos(a)
        self.state = np.array([x + 0.02 * v, v + 0.02 * acc, a + 0.02 * w, w + 0.02 * acc_w])
        done = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        return self.state.astype(np.float32), 1.0, bool(done)


class Monitor:
    def __init__(self, env):
        self.env = env
        self.frames, self.episodes, self.best = [], {}, 0.0

    def reset(self):
        self.frames = []
        return self.env.reset()

    def step(self, action):
        obs, reward, done = self.env.step(action)
        self.frames.append(self.env.render())
        if done:
            self.episodes[len(self.episodes)] = np.stack(self.frames)
            self.best = max(self.best, float(len(self.frames)))
        return obs, reward, done


def serve(pipe, seed):
    env = Monitor(Pole(seed))
    obs = env.reset()
    pipe.send(obs)
    while True:
        action = pipe.recv()
        if action is None:
            break
        obs, reward, done = env.step(action)
        if done:
            obs = env.reset()
        pipe.send((obs, reward, done))


def main():
    torch.manual_seed(0)
    ctx = mp.get_context("fork")
    pipes, workers = [], []
    for seed in range(2):
        ours, theirs = ctx.Pipe()
        w = ctx.Process(target=serve, args=(theirs, seed), daemon=True)
        w.start()
        pipes.append(ours)
        workers.append(w)
    obs = torch.tensor(np.stack([p.recv() for p in pipes]))
    net = nn.Sequential(nn.Linear(4, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh())
    pi, vf = nn.Linear(128, 2), nn.Linear(128, 1)
    params = [*net.parameters(), *pi.parameters(), *vf.parameters()]
    optimizer = torch.optim.Adam(params, lr=1e-3)
    updates, horizon = 2700, 10
    began = time.time()
    finished = 0
    for update in range(1, updates + 1):
        logps, values, rewards, masks, ents = [], [], [], [], []
        for _ in range(horizon):
            h = net(obs)
            dist = torch.distributions.Categorical(logits=pi(h), validate_args=False)
            act = dist.sample()
            for p, a in zip(pipes, act.tolist()):
                p.send(a)
            back = [p.recv() for p in pipes]
            obs = torch.tensor(np.stack([b[0] for b in back]))
            logps.append(dist.log_prob(act))
            ents.append(dist.entropy().mean())
            values.append(vf(h).squeeze(-1))
            rewards.append(torch.tensor([b[1] for b in back]))
            masks.append(torch.tensor([0.0 if b[2] else 1.0 for b in back]))
            finished += sum(b[2] for b in back)
        with torch.no_grad():
            ret = vf(net(obs)).squeeze(-1)
        loss = 0
        for lp, v, r, m, e in zip(*map(reversed, (logps, values, rewards, masks, ents))):
            ret = r + 0.99 * m * ret
            adv = ret - v
            loss = loss - (lp * adv.detach()).mean() + 0.5 * adv.pow(2).mean() - 0.01 * e
        optimizer.zero_grad()
        (loss / horizon).backward()
        optimizer.step()
        if update % 250 == 0:
            print(f"update {update} episodes {finished} {time.time() - began:.1f}s", flush=True)
    for p in pipes:
        p.send(None)
    for w in workers:
        w.join(5)
    print("steps", updates)


if __name__ == "__main__":
    main()
