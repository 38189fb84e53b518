"""Actor-learner loop: the learner publishes flattened policy weights for rollout ranks."""
import atexit
from collections import Counter
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)
STEPS = 4000
SYNC_EVERY = 20


class WeightChannel:
    def __init__(self, ranks):
        self.ranks = ranks
        self.acks = Counter()
        self.segments = {}
        atexit.register(self.shutdown)

    def publish(self, version, flat):
        segment = shared_memory.SharedMemory(create=True, size=flat.nbytes)
        np.ndarray(flat.shape, flat.dtype, buffer=segment.buf)[:] = flat
        self.segments[version] = segment

    def fetch(self, version, count, rank):
        view = np.frombuffer(self.segments[version].buf, dtype=np.float32, count=count)
        weights = torch.from_numpy(view.copy())
        del view
        self.acks[version] += 1
        if self.acks[version] > self.ranks:
            self.release(version)
        return weights

    def release(self, version):
        segment = self.segments.pop(version)
        segment.close()
        segment.unlink()

    def shutdown(self):
        for version in list(self.segments):
            self.release(version)


def make_policy():
    return nn.Sequential(nn.Linear(24, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 6))


def main():
    learner, actor = make_policy(), make_policy()
    opt = torch.optim.Adam(learner.parameters(), lr=5e-4)
    channel = WeightChannel(ranks=2)
    for step in range(STEPS):
        if step % SYNC_EVERY == 0:
            flat = nn.utils.parameters_to_vector(learner.parameters()).detach().numpy()
            channel.publish(step, flat)
            for rank in range(channel.ranks):
                nn.utils.vector_to_parameters(channel.fetch(step, flat.size, rank), actor.parameters())
        obs = torch.randn(192, 24)
        with torch.no_grad():
            actions = torch.distributions.Categorical(logits=actor(obs)).sample()
        reward = (actions == obs[:, :6].argmax(1)).float() - 1 / 6
        logp = torch.log_softmax(learner(obs), -1).gather(1, actions.unsqueeze(1)).squeeze(1)
        loss = -(logp * reward).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 400 == 0:
            print(f"step {step} reward {reward.mean().item():.3f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
