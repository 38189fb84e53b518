"""Policy-gradient fine-tuning of a small policy; every rollout is also written to disk for offline study."""
import os
import pickle
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
UPDATES, HORIZON, OBS, ACTIONS = 2600, 64, 192, 8


class RolloutLog:
    """One file per run, one pickle per rollout; readable with repeated pickle.load."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.pickler = pickle.Pickler(self.file, protocol=5)

    def write(self, rollout):
        self.pickler.dump(rollout)

    def close(self):
        self.file.close()


def collect(policy, rng):
    obs = rng.standard_normal((HORIZON, OBS), dtype=np.float32)
    with torch.no_grad():
        logits = policy(torch.from_numpy(obs))
        action = torch.distributions.Categorical(logits=logits).sample().numpy()
    reward = (action == np.abs(obs[:, :ACTIONS]).argmax(1)).astype(np.float32)
    return {"obs": obs, "action": action, "reward": reward}


def main():
    path = os.path.join(tempfile.gettempdir(), f"rollouts-{os.getpid()}.pkl")
    log = RolloutLog(path)
    rng = np.random.default_rng(0)
    policy = nn.Sequential(nn.Linear(OBS, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, ACTIONS))
    opt = torch.optim.Adam(policy.parameters(), lr=3e-4)
    for update in range(1, UPDATES + 1):
        rollout = collect(policy, rng)
        log.write(rollout)
        obs = torch.from_numpy(rollout["obs"])
        advantage = torch.from_numpy(rollout["reward"] - rollout["reward"].mean())
        logp = torch.distributions.Categorical(logits=policy(obs)).log_prob(torch.from_numpy(rollout["action"]))
        loss = -(logp * advantage).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if update % 200 == 0:
            print(f"update {update} reward {rollout['reward'].mean():.3f}", flush=True)
    log.close()
    os.remove(path)


if __name__ == "__main__":
    main()
