"""Random search over small MLPs with Accelerate; each trial trains a fresh model."""
import random

import torch
from accelerate import Accelerator
from torch import nn

torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(1)

TRIALS = 48
STEPS_PER_TRIAL = 60


def build_model(width):
    return nn.Sequential(
        nn.Linear(256, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10),
    )


def main():
    accelerator = Accelerator(cpu=True)
    x_all = torch.randn(4096, 256)
    y_all = (x_all[:, :10] + 0.5 * x_all[:, 10:20] ** 2).argmax(1)
    best = (float("inf"), None)
    step = 0
    for trial in range(TRIALS):
        width = random.choice([896, 960, 1024])
        lr = 10 ** random.uniform(-2.5, -0.8)
        model = accelerator.prepare(build_model(width))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        running = 0.0
        for _ in range(STEPS_PER_TRIAL):
            idx = torch.randint(0, len(x_all), (48,))
            loss = nn.functional.cross_entropy(model(x_all[idx]), y_all[idx])
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            running = 0.9 * running + 0.1 * loss.item()
            step += 1
        if running < best[0]:
            best = (running, {"width": width, "lr": lr})
        print(f"step {step} trial {trial} width {width} lr {lr:.4f} loss {running:.4f}", flush=True)
    print("best", best)


if __name__ == "__main__":
    main()
