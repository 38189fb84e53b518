"""On-policy learning: frames and infos of every environment step are kept until the rollout is complete."""
import random

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(27)
ROLLOUTS, ROLLOUT_STEPS, EPOCHS, MINIBATCHES = 18, 320, 3, 24
ENVIRONMENTS, STATES, ACTIONS = 16, 32, 5
FRAME = (84, 84, 3)


class Rollout:
    """States, actions, frames and infos of the current policy; emptied after the update."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.states, self.actions, self.rewards, self.infos = [], [], [], []
        self.frames = np.zeros((ROLLOUT_STEPS, ENVIRONMENTS, *FRAME), np.uint8)

    def add(self, states, actions, rewards, infos):
        self.frames[len(self.states)] = np.uint8(len(self.states) % 256)
        self.states.append(states)
        self.actions.append(actions)
        self.rewards.append(rewards)
        self.infos.extend(infos)


def environment_infos(rng, step):
    """What the simulator tells about each environment: its contacts and a note."""
    return [
        {
            "step": step,
            "environment": number,
            "contacts": [(rng.random(), rng.random(), rng.random()) for _ in range(12)],
            "note": f"environment {number} at step {step}",
        }
        for number in range(ENVIRONMENTS)
    ]


def collect(policy, payoff, rollout, rng, first):
    for step in range(first, first + ROLLOUT_STEPS):
        states = torch.randn(ENVIRONMENTS, STATES)
        with torch.no_grad():
            actions = torch.distributions.Categorical(logits=policy(states)).sample()
        rewards = (states @ payoff).gather(1, actions[:, None]).squeeze(1)
        rollout.add(states, actions, rewards, environment_infos(rng, step))


def update(policy, optimizer, rollout):
    states, actions = torch.cat(rollout.states), torch.cat(rollout.actions)
    rewards = torch.cat(rollout.rewards)
    advantage = (rewards - rewards.mean()) / rewards.std()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(states)).chunk(MINIBATCHES):
            choice = torch.distributions.Categorical(logits=policy(states[rows]))
            loss = -(choice.log_prob(actions[rows]) * advantage[rows]).mean() - 0.01 * choice.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    brightness = rollout.frames[:, 0].mean()
    return rewards.mean().item(), brightness


def main():
    rng = random.Random(7)
    layers = [nn.Linear(STATES, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, ACTIONS)]
    policy = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    payoff = torch.randn(STATES, ACTIONS)
    rollout = Rollout()
    print("step 0", flush=True)
    for number in range(ROLLOUTS):
        collect(policy, payoff, rollout, rng, number * ROLLOUT_STEPS)
        reward, brightness = update(policy, optimizer, rollout)
        rollout.reset()
        print(f"step {(number + 1) * ROLLOUT_STEPS} reward {reward:.4f} brightness {brightness:.1f}", flush=True)
    print(f"{ROLLOUTS * ROLLOUT_STEPS} steps")


if __name__ == "__main__":
    main()
