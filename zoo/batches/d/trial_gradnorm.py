"""Random search over small tabular regressors, each trained with a gradient-norm penalty."""
import random
import warnings

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
warnings.filterwarnings("ignore")

FEATURES, TRIALS, STEPS = 256, 100, 46


def make_data(rows=2048):
    x = torch.randn(rows, FEATURES)
    y = torch.sin(x[:, :8].sum(1)) + 0.1 * torch.randn(rows)
    return x, y


def run_trial(config, x, y):
    hidden = nn.Linear(FEATURES, config["width"])
    out = nn.Linear(config["width"], 1)
    params = [*hidden.parameters(), *out.parameters()]
    opt = torch.optim.SGD(params, lr=config["lr"], momentum=0.9)
    for _ in range(STEPS):
        pick = torch.randint(0, len(x), (96,))
        opt.zero_grad()
        error = out(torch.tanh(hidden(x[pick]))).squeeze(1) - y[pick]
        loss = error.pow(2).mean()
        loss.backward(create_graph=True)
        penalty = sum(p.grad.pow(2).sum() for p in params)
        (config["penalty"] * penalty).backward()
        opt.step()
    return loss.item()


def main():
    x, y = make_data()
    best = (float("inf"), None)
    for trial in range(TRIALS):
        config = {"width": random.choice([448, 512, 576]), "lr": 10 ** random.uniform(-4, -2.5),
                  "penalty": random.choice([0.01, 0.001])}
        score = run_trial(config, x, y)
        if score < best[0]:
            best = (score, config)
        if trial % 16 == 0:
            print(f"trial {trial}: best {best[0]:.3f}")
    print(f"{TRIALS * STEPS} steps")


main()
