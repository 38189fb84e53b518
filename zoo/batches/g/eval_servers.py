"""Policy gradients with an evaluation every hundred steps in an environment that runs in its own process."""
import atexit
import json
import subprocess
import sys

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(30)
STEPS = 3600
EVALUATE_EVERY = 100
STATES, ACTIONS = 24, 4

SERVER = """
import json, random, sys
level = random.Random(int(sys.argv[1]))
grid = [[level.random() for _ in range(96)] for _ in range(1024)]
position = 0
for line in sys.stdin:
    action = json.loads(line)["action"]
    position = (position * 31 + action * 7 + 1) % len(grid)
    print(json.dumps({"state": grid[position][:24], "reward": grid[position][24 + action]}), flush=True)
"""


class RemoteEnv:
    """A simulator behind a pipe, closed when the program ends."""

    def __init__(self, seed):
        command = [sys.executable, "-c", SERVER, str(seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.close)

    def step(self, action):
        self.process.stdin.write(json.dumps({"action": action}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return torch.tensor(answer["state"]), answer["reward"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def evaluate(policy, seed, steps=40):
    env = RemoteEnv(seed)
    total, action = 0.0, 0
    for _ in range(steps):
        state, reward = env.step(action)
        total += reward
        with torch.no_grad():
            action = int(policy(state).argmax())
    return total / steps


def main():
    layers = [nn.Linear(STATES, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, ACTIONS)]
    policy = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
    payoff = torch.randn(STATES, ACTIONS)
    for step in range(STEPS):
        states = torch.rand(128, STATES)
        choice = torch.distributions.Categorical(logits=policy(states))
        actions = choice.sample()
        rewards = (states @ payoff).gather(1, actions[:, None]).squeeze(1)
        loss = -(choice.log_prob(actions) * (rewards - rewards.mean())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVALUATE_EVERY == 0:
            score = evaluate(policy, seed=step)
            print(f"step {step} reward {rewards.mean():.4f} evaluation {score:.4f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
