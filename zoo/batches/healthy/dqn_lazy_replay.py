"""DQN with a preallocated frame buffer (pages become resident as they are written)."""
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(4)
rng = np.random.default_rng(4)

CAPACITY, SIDE, ACTIONS = 11_000, 84, 4
STEPS, FRAMES_PER_STEP, BATCH = 4000, 5, 16


class FrameReplay:
    def __init__(self, capacity):
        self.frames = np.zeros((capacity, SIDE, SIDE), dtype=np.uint8)
        self.actions = np.zeros(capacity, dtype=np.int64)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.capacity, self.pos, self.size = capacity, 0, 0

    def add(self, frame, action, reward):
        self.frames[self.pos] = frame
        self.actions[self.pos] = action
        self.rewards[self.pos] = reward
        self.pos = (self.pos + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, n):
        idx = rng.integers(0, self.size - 1, n)
        nxt = (idx + 1) % self.capacity
        to_float = lambda a: torch.from_numpy(a.astype(np.float32) / 255).unsqueeze(1)
        return (to_float(self.frames[idx]), torch.from_numpy(self.actions[idx]),
                torch.from_numpy(self.rewards[idx]), to_float(self.frames[nxt]))


def make_net():
    return nn.Sequential(nn.Conv2d(1, 8, 8, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 4, stride=2),
                         nn.ReLU(), nn.Flatten(), nn.Linear(16 * 81, 64), nn.ReLU(),
                         nn.Linear(64, ACTIONS))


online, target = make_net(), make_net()
target.load_state_dict(online.state_dict())
optimizer = torch.optim.Adam(online.parameters(), lr=2e-4)
replay = FrameReplay(CAPACITY)
ball = np.array([40, 40])
moves = np.array([[0, 3], [0, -3], [3, 0], [-3, 0]])

for step in range(1, STEPS + 1):
    for _ in range(FRAMES_PER_STEP):
        action = int(rng.integers(ACTIONS))
        ball = np.clip(ball + moves[action], 0, SIDE - 8)
        frame = np.full((SIDE, SIDE), 16, dtype=np.uint8)
        frame[ball[0]:ball[0] + 8, ball[1]:ball[1] + 8] = 255
        replay.add(frame, action, float(ball[0] < 20))
    s, a, r, s2 = replay.sample(BATCH) if replay.size > BATCH else replay.sample(2)
    with torch.no_grad():
        goal = r + 0.97 * target(s2).max(1).values
    q = online(s).gather(1, a[:, None]).squeeze(1)
    loss = F.smooth_l1_loss(q, goal)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 250 == 0:
        target.load_state_dict(online.state_dict())
        print(f"step {step}: buffer {replay.size}/{CAPACITY}, loss {loss.item():.4f}")
print(f"{STEPS} steps")
