import copy

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(11)


class PendulumBatch:
    """A small vectorised environment: 32 pendulums integrated with Euler steps."""

    def __init__(self, n=32):
        self.state = torch.randn(n, 6)

    def step(self, action):
        theta, omega = self.state[:, :1], self.state[:, 1:2]
        omega = (omega + 0.05 * (torch.sin(theta) + action)).clamp(-4, 4)
        theta = theta + 0.05 * omega
        rest = torch.cat([torch.sin(theta), torch.cos(theta), action, action * omega], dim=1)
        self.state = torch.cat([theta, omega, rest], dim=1)
        return self.state, -(theta ** 2 + 0.1 * omega ** 2)


def mlp(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, n_out))


class Agent:
    def __init__(self):
        self.actor, self.critic = mlp(6, 1), mlp(6, 1)
        self.target = copy.deepcopy(self.critic)
        self.opt_actor = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.opt_critic = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        self.value_ema = torch.zeros(())

    def update(self, obs, reward, next_obs):
        with torch.no_grad():
            backup = reward + 0.97 * self.target(next_obs)
        critic_loss = (self.critic(obs) - backup).pow(2).mean()
        self.opt_critic.zero_grad()
        critic_loss.backward()
        self.opt_critic.step()
        value = self.target(next_obs).mean()
        self.value_ema = 0.995 * self.value_ema + 0.005 * value
        actor_loss = (self.actor(obs) ** 2).mean() - 0.01 * self.critic(obs).mean().detach()
        self.opt_actor.zero_grad()
        actor_loss.backward()
        self.opt_actor.step()
        with torch.no_grad():
            for p, q in zip(self.critic.parameters(), self.target.parameters()):
                q.lerp_(p, 0.01)
        return float(critic_loss)


env, agent = PendulumBatch(), Agent()
obs = env.state
for step in range(1, 7001):
    with torch.no_grad():
        action = agent.actor(obs) + 0.1 * torch.randn(32, 1)
    next_obs, reward = env.step(action)
    loss = agent.update(obs, reward, next_obs)
    obs = next_obs
    if step % 700 == 0:
        print(f"{step}: critic {loss:.4f} value {agent.value_ema.item():.3f}")
print(f"finished {step} steps")
