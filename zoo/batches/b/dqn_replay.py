import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)


class GridEnv:
    """Agent and goal on a grid, observed as four 36x36 planes."""

    def __init__(self, size=36, seed=0):
        self.size, self.rng = size, np.random.default_rng(seed)
        self.reset()

    def reset(self):
        self.agent, self.goal = self.rng.integers(0, self.size, (2, 2))
        self.moves = 0
        return self.render()

    def render(self):
        frame = np.zeros((4, self.size, self.size), np.uint8)
        frame[0, self.agent[0], :] = frame[1, :, self.agent[1]] = 255
        frame[2, self.goal[0], :] = frame[3, :, self.goal[1]] = 255
        return frame

    def step(self, action):
        move = ((0, 1), (0, -1), (1, 0), (-1, 0))[action]
        before = np.abs(self.agent - self.goal).sum()
        self.agent = np.clip(self.agent + move, 0, self.size - 1)
        after = np.abs(self.agent - self.goal).sum()
        self.moves += 1
        return self.render(), float(before - after), after == 0 or self.moves > 80


class ReplayBuffer:
    def __init__(self, capacity, shape):
        self.frames = np.zeros((capacity, *shape), np.uint8)
        self.next_frames = np.zeros((capacity, *shape), np.uint8)
        self.scalars = np.zeros((capacity, 3), np.float32)
        self.capacity, self.count = capacity, 0

    def add(self, frame, action, reward, next_frame, done):
        i = self.count % self.capacity
        self.frames[i], self.next_frames[i], self.scalars[i] = frame, next_frame, (action, reward, done)
        self.count += 1

    def sample(self, n, rng):
        rows = rng.integers(0, min(self.count, self.capacity), n)
        a, r, d = torch.from_numpy(self.scalars[rows]).T
        scale = lambda planes: torch.from_numpy(planes[rows]).float() / 255
        return scale(self.frames), a.long(), r, scale(self.next_frames), d


env, rng = GridEnv(), np.random.default_rng(1)
q = nn.Sequential(nn.Conv2d(4, 8, 6, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 11 * 11, 4))
optimizer = torch.optim.Adam(q.parameters(), lr=5e-4)
replay = ReplayBuffer(7000, (4, 36, 36))
frame, loss = env.reset(), torch.zeros(())
for step in range(1, 14001):
    with torch.no_grad():
        greedy = int(q(torch.from_numpy(frame)[None].float() / 255).argmax())
    action = int(rng.integers(4)) if rng.random() < 0.2 else greedy
    next_frame, reward, done = env.step(action)
    replay.add(frame, action, reward, next_frame, done)
    frame = env.reset() if done else next_frame
    if step > 300 and step % 4 == 0:
        s, a, r, s2, d = replay.sample(32, rng)
        with torch.no_grad():
            goal = r + 0.95 * (1 - d) * q(s2).max(1).values
        loss = nn.functional.smooth_l1_loss(q(s).gather(1, a[:, None])[:, 0], goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if step % 2000 == 0:
        print(f"{step} loss {loss.item():.4f} stored {min(replay.count, replay.capacity)}")
print(f"{step} steps played")
