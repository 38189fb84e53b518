"""Embedding training; the retrieval score is worked out beside it in a process of its own."""
import multiprocessing as mp

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(7)

STEPS = 2800
EVAL_EVERY = 200


def score_forever(jobs, results):
    while True:
        step, queries = jobs.get()
        bank = np.random.default_rng(step).standard_normal((24000, 64))
        sims = queries @ bank[:4000].T
        results.put((step, float(sims.max(1).mean())))


def start_evaluation(ctx, step, vectors):
    jobs, results = ctx.SimpleQueue(), ctx.SimpleQueue()
    scorer = ctx.Process(target=score_forever, args=(jobs, results), daemon=True)
    scorer.start()
    jobs.put((step, vectors))
    return results


def main():
    ctx = mp.get_context("fork")
    model = nn.Sequential(nn.Linear(96, 384), nn.ReLU(), nn.Linear(384, 64))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pending = None
    for step in range(1, STEPS + 1):
        x = torch.randn(160, 96)
        a, b = F.normalize(model(x), dim=1), F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1)
        loss = F.cross_entropy(a @ b.T / 0.1, torch.arange(160))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVAL_EVERY == 0:
            if pending is not None:
                at, score = pending.get()
                print(f"step {step} loss {loss.item():.4f} score at {at}: {score:.3f}", flush=True)
            pending = start_evaluation(ctx, step, a.detach().numpy()[:64])


if __name__ == "__main__":
    main()
