"""Stable-Baselines3's DQN on CartPole, as its documentation writes it, with the Zoo's parameters."""

import json

import gymnasium as gym
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from stopwatch import Stopwatch


class Times(BaseCallback):
    """Notes the end of each step in the environment."""

    def _on_step(self) -> bool:
        watch.step()
        return True


watch = Stopwatch()
env = gym.make("CartPole-v1")
model = DQN(
    "MlpPolicy", env, learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1000, gamma=0.99,
    target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
    exploration_final_eps=0.04, policy_kwargs={"net_arch": [256, 256]}, seed=1, verbose=0,
)  # fmt: skip
model.learn(total_timesteps=28_000, log_interval=4, callback=Times())
watch.write()
model.save("dqn_cartpole")
del model
model = DQN.load("dqn_cartpole", env=env)
rewards, lengths = evaluate_policy(model, model.get_env(), n_eval_episodes=10, return_episode_rewards=True)
print("LOSSES", json.dumps([float(reward) for reward in rewards]))
