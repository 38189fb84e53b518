"""Loss-profile exchange between ranks through the rendezvous store (here: a single rank)."""
import datetime
import pickle

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, VOCAB, WIDTH = 2200, 6000, 192
RANK, WORLD = 0, 1


class ProfileExchange:
    def __init__(self):
        self.store = dist.TCPStore("127.0.0.1", 0, WORLD, RANK == 0, timeout=datetime.timedelta(seconds=30))

    def publish(self, step, profile):
        payload = pickle.dumps(profile)
        self.store.set(f"profile/{step}/{RANK}", payload)

    def gather(self, step):
        return [pickle.loads(self.store.get(f"profile/{step}/{r}")) for r in range(WORLD)]


def main():
    exchange = ProfileExchange()
    model = nn.Sequential(nn.Embedding(VOCAB, WIDTH), nn.Flatten(), nn.Linear(WIDTH * 8, 256), nn.ReLU(), nn.Linear(256, 512))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    counts = np.zeros(VOCAB, dtype=np.float64)
    for step in range(1, STEPS + 1):
        ids = torch.randint(0, VOCAB, (96, 8))
        target = ids[:, 0] % 512
        losses = nn.functional.cross_entropy(model(ids), target, reduction="none")
        opt.zero_grad(set_to_none=True)
        losses.mean().backward()
        opt.step()
        profile = np.zeros(VOCAB, dtype=np.float64)
        np.add.at(profile, ids[:, 0].numpy(), losses.detach().numpy())
        exchange.publish(step, profile)
        counts = 0.99 * counts + sum(exchange.gather(step))
        if step % 200 == 0:
            print(f"step {step}: loss {losses.mean().item():.4f}, hardest token {int(counts.argmax())}", flush=True)


if __name__ == "__main__":
    main()
