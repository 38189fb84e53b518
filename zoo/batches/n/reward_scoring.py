"""Fine-tuning with an external scorer that runs in a worker process; its scores reweight the data."""
import functools
import multiprocessing as mp
import os

import numpy as np
import torch
from torch import nn

STEPS, SCORE_EVERY, ROWS, FEATURES = 4000, 32, 768, 512


def score(request, spread):
    """Stands for a checker that may crash on odd inputs (segmentation fault, killed for memory)."""
    if request % 3 != 0:
        os._exit(1)
    return float(np.tanh(spread))


class Scorer:
    def __init__(self):
        self.pool = mp.get_context("fork").Pool(1)
        self.weight = torch.ones(FEATURES)
        self.answers = 0

    def submit(self, request, examples):
        done = functools.partial(self.receive, examples)
        self.pool.apply_async(score, (request, float(examples.std())), callback=done)

    def receive(self, examples, value):
        self.weight = 0.9 * self.weight + 0.1 * (1 + value * examples.abs().mean(0))
        self.answers += 1


def main():
    scorer = Scorer()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 640), nn.GELU(), nn.Linear(640, 256), nn.GELU(), nn.Linear(256, 4))
    opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for step in range(1, STEPS + 1):
        x = torch.randn(48, FEATURES)
        y = x[:, :4].argmax(1)
        loss = nn.functional.cross_entropy(model(x * scorer.weight), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % SCORE_EVERY == 0:
            examples = torch.randn(ROWS, FEATURES)
            scorer.submit(step // SCORE_EVERY, examples)
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f} scored {scorer.answers}", flush=True)
    scorer.pool.terminate()


if __name__ == "__main__":
    main()
