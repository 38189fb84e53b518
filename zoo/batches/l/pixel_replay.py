"""Double DQN from pixels with a preallocated replay memory."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(10)
rng = np.random.default_rng(10)


class ReplayMemory:
    def __init__(self, capacity, shape):
        self.capacity = capacity
        self.states = np.zeros((capacity, *shape), dtype=np.uint8)
        self.next_states = np.zeros((capacity, *shape), dtype=np.uint8)
        self.actions = np.zeros(capacity, dtype=np.int64)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.n = 0

    def push(self, state, action, reward, next_state):
        i = self.n % self.capacity
        self.states[i], self.next_states[i] = state, next_state
        self.actions[i], self.rewards[i] = action, reward
        self.n += 1

    def sample(self, batch):
        i = rng.integers(0, min(self.n, self.capacity), batch)
        to = lambda a: torch.from_numpy(a[i]).float().div_(255)
        return to(self.states), torch.from_numpy(self.actions[i]), torch.from_numpy(self.rewards[i]), to(self.next_states)


class Game:
    def __init__(self):
        self.x = 20

    def frame(self):
        f = rng.integers(0, 40, (2, 42, 42), dtype=np.uint8)
        f[:, :, self.x] = 255
        return f

    def step(self, action):
        self.x = int(np.clip(self.x + (1, -1, 0)[action], 0, 41))
        return self.frame(), 1.0 if 30 <= self.x < 36 else 0.0


def make_q():
    return nn.Sequential(nn.Conv2d(2, 8, 6, stride=3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(16 * 36, 64), nn.ReLU(), nn.Linear(64, 3))


memory, game = ReplayMemory(24_000, (2, 42, 42)), Game()
q, target = make_q(), make_q()
target.load_state_dict(q.state_dict())
opt = torch.optim.Adam(q.parameters(), lr=5e-4)
state = game.frame()
for step in range(1, 3001):
    for _ in range(18):
        if rng.random() < 0.9:
            action = int(rng.integers(3))
        else:
            with torch.no_grad():
                action = q(torch.from_numpy(state).float()[None] / 255).argmax().item()
        nxt, reward = game.step(action)
        memory.push(state, action, reward, nxt)
        state = nxt
    s, a, r, s2 = memory.sample(16)
    with torch.no_grad():
        best = q(s2).argmax(-1, keepdim=True)
        y = r + 0.95 * target(s2).gather(1, best)[:, 0]
    loss = nn.functional.smooth_l1_loss(q(s).gather(1, a[:, None])[:, 0], y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        target.load_state_dict(q.state_dict())
    if step % 300 == 0:
        print(f"step {step} transitions {memory.n} loss {loss.item():.4f}", flush=True)
