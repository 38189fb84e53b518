"""Stable-Baselines3's PPO on Pendulum in four environments, with evaluation and checkpoints while it learns."""

import json

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from stopwatch import Stopwatch


class Times(BaseCallback):
    """Notes the end of each step in the environments."""

    def _on_step(self) -> bool:
        watch.step()
        return True


watch = Stopwatch()
vec_env = make_vec_env("Pendulum-v1", n_envs=4, seed=1)
eval_env = make_vec_env("Pendulum-v1", n_envs=1, seed=2)
evaluate = EvalCallback(eval_env, best_model_save_path="best", log_path="logs", eval_freq=2048, verbose=0)
save = CheckpointCallback(save_freq=4096, save_path="checkpoints")
model = PPO(
    "MlpPolicy", vec_env, n_steps=1024, gae_lambda=0.95, gamma=0.9, n_epochs=10, ent_coef=0.0, learning_rate=1e-3,
    clip_range=0.2, use_sde=True, sde_sample_freq=4, seed=1, verbose=0,
)  # fmt: skip
model.learn(total_timesteps=60_000, callback=[evaluate, save, Times()])
watch.write()
model.save("ppo_pendulum")
rewards, lengths = evaluate_policy(model, eval_env, n_eval_episodes=5, return_episode_rewards=True)
print("LOSSES", json.dumps([float(reward) for reward in rewards]))
