"""Asynchronous actors report over pipes to the learner, which waits on all of them with one selector."""
import pickle
import selectors
import socket
import threading

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)

sel = selectors.DefaultSelector()


class Actor:
    def __init__(self, number, sock):
        self.number = number
        self.sock = sock

    def run(self, weights):
        state = torch.randn(32, 24)
        action = torch.tanh(state @ weights)
        target = -state[:, :6].cumsum(1).tanh()
        self.sock.sendall(pickle.dumps((state.numpy(), action.numpy(), target.numpy())))


class Learner:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(24, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 6))
        self.proj = torch.randn(24, 6) * 0.1
        self.opt = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.step = 0

    def launch(self, number):
        ours, theirs = socket.socketpair()
        actor = Actor(number, theirs)
        sel.register(ours, selectors.EVENT_READ, data=actor)
        threading.Thread(target=actor.run, args=(self.proj,), daemon=True).start()

    def collect(self):
        for key, _ in sel.select(timeout=1.0):
            yield pickle.loads(key.fileobj.recv(1 << 20))

    def update(self, rollout):
        state, action, target = (torch.from_numpy(a.copy()) for a in rollout)
        for _ in range(6):
            pick = torch.randint(0, len(state), (64,))
            loss = nn.functional.mse_loss(self.model(state[pick]), target[pick])
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.step += 1
            if self.step % 480 == 0:
                print(f"step {self.step} loss {loss.item():.4f} actor spread {action.std():.3f}", flush=True)


learner = Learner()
number = 0
while learner.step < 4800:
    learner.launch(number)
    number += 1
    for rollout in learner.collect():
        for _ in range(2):
            learner.update(rollout)
