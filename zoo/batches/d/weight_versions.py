"""Learner that publishes its weights through shared memory for an actor; actor reads the newest."""
import threading
from multiprocessing import shared_memory

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

torch.set_num_threads(1)


def network():
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))


class WeightStore:
    def __init__(self):
        self.blocks, self.newest, self.lock = {}, None, threading.Lock()

    def publish(self, version, vector):
        flat = vector.detach().numpy()
        block = shared_memory.SharedMemory(create=True, size=flat.nbytes)
        np.frombuffer(block.buf, dtype=flat.dtype)[:flat.size] = flat
        with self.lock:
            self.blocks[version] = block
            self.newest = (version, flat.size)

    def fetch(self):
        with self.lock:
            version, size = self.newest
            return version, torch.tensor(np.frombuffer(self.blocks[version].buf, dtype=np.float32)[:size])

    def shutdown(self):
        for block in self.blocks.values():
            block.close()
            block.unlink()


class Learner:
    def __init__(self):
        torch.manual_seed(4)
        self.model, self.actor, self.store = network(), network(), WeightStore()
        self.opt = torch.optim.Adam(self.model.parameters(), lr=5e-4)
        self.teacher = torch.randn(64, 8)

    def act(self, count=192):
        _, vector = self.store.fetch()
        vector_to_parameters(vector, self.actor.parameters())
        state = torch.randn(count, 64)
        with torch.no_grad():
            return state, self.actor(state).argmax(1)

    def train(self, steps, every):
        for step in range(steps):
            if step % every == 0:
                self.store.publish(step // every, parameters_to_vector(self.model.parameters()))
            state, action = self.act()
            reward = (state @ self.teacher).gather(1, action[:, None])
            loss = (self.model(state).gather(1, action[:, None]) - reward).pow(2).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        return steps


learner = Learner()
print(learner.train(5600, 40), "steps")
learner.store.shutdown()
