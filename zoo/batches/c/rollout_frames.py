import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(50)


class Catch:
    """A ball falls on a 64x64 screen; the paddle moves left, right or stays."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.new_ball()
        self.paddle = 32

    def new_ball(self):
        self.row, self.column = 0, int(self.rng.integers(4, 60))

    def observe(self):
        screen = np.zeros((2, 64, 64), np.float32)
        screen[0, self.row, max(0, self.column - 1):self.column + 2] = 1
        screen[1, 62:, max(0, self.paddle - 5):self.paddle + 6] = 1
        return screen

    def step(self, action):
        self.paddle = int(np.clip(self.paddle + (action - 1) * 4, 5, 58))
        self.row += 3
        if self.row < 62:
            return self.observe(), 0.0
        reward = 1.0 if abs(self.paddle - self.column) <= 6 else -1.0
        self.new_ball()
        return self.observe(), reward


class Rollout:
    def __init__(self):
        self.frames, self.actions, self.rewards = [], [], []

    def add(self, frame, action, reward):
        self.frames.append(frame)
        self.actions.append(action)
        self.rewards.append(reward)

    def returns(self, gamma=0.95):
        out, acc = np.zeros(len(self.rewards), np.float32), 0.0
        for i in reversed(range(len(out))):
            out[i] = acc = self.rewards[i] + gamma * acc
        return torch.from_numpy((out - out.mean()) / (out.std() + 1e-6))

    def clear(self):
        self.frames.clear(), self.actions.clear(), self.rewards.clear()


env, rollout = Catch(), Rollout()
policy = nn.Sequential(nn.Conv2d(2, 8, 8, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 15 * 15, 3))
optimizer = torch.optim.Adam(policy.parameters(), lr=7e-4)
frame, steps = env.observe(), 0
for iteration in range(11):
    for _ in range(1300):
        with torch.no_grad():
            logits = policy(torch.from_numpy(frame)[None])
        action = int(torch.multinomial(logits.softmax(1), 1))
        following, reward = env.step(action)
        rollout.add(frame, action, reward)
        frame = following
        steps += 1
    frames, actions = torch.from_numpy(np.stack(rollout.frames)), torch.tensor(rollout.actions)
    advantage = rollout.returns()
    for _ in range(4):
        for rows in torch.randperm(len(frames)).split(130):
            loss = (nn.functional.cross_entropy(policy(frames[rows]), actions[rows], reduction="none") * advantage[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"iteration {iteration} reward {sum(rollout.rewards):.0f} loss {loss.item():.4f}")
    del frames
    rollout.clear()
print(f"{steps} steps")
