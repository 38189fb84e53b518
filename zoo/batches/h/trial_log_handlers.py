"""Random search over learning rates; each trial writes its own log file."""
import logging
import os
import shutil
import tempfile

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)

TRIALS, STEPS_PER_TRIAL = 300, 14
LOG = logging.getLogger("search")
LOG.setLevel(logging.INFO)
LOG.propagate = False


def setup_trial_log(folder, trial):
    handler = logging.FileHandler(os.path.join(folder, f"trial_{trial:04d}.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)


def run_trial(trial, x, y):
    lr = 10 ** float(torch.empty(1).uniform_(-4, -1))
    model = nn.Sequential(nn.Linear(64, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(STEPS_PER_TRIAL):
        idx = torch.randint(0, len(x), (128,))
        loss = nn.functional.mse_loss(model(x[idx]).squeeze(1), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    LOG.info("trial %d lr %.2e loss %.4f", trial, lr, loss.item())
    return loss.item(), lr


def main():
    folder = tempfile.mkdtemp(prefix="search_logs_")
    x = torch.randn(8192, 64)
    y = x[:, :5].prod(1) + x[:, 5]
    best = (float("inf"), None)
    try:
        for trial in range(TRIALS):
            setup_trial_log(folder, trial)
            best = min(best, run_trial(trial, x, y))
            if (trial + 1) % 30 == 0:
                print(f"trial {trial + 1} best loss {best[0]:.4f} lr {best[1]:.1e}", flush=True)
    finally:
        logging.shutdown()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
