"""Fine-tuning with augmentation in a worker process that is renewed after a number of tasks."""
import multiprocessing as mp

import numpy as np

STEPS, TASK_EVERY, FEATURES = 2400, 10, 320
_noise = {}


def augment(task):
    """Adds noise of a colour; the worker keeps each colour it has drawn."""
    if task not in _noise:
        _noise[task] = np.random.default_rng(task).standard_normal((1000, FEATURES)).astype(np.float32)
    return _noise[task][: 48].copy()


def main():
    pool = mp.get_context("fork").Pool(1, maxtasksperchild=30)
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 768), nn.GELU(), nn.Linear(768, 512), nn.GELU(), nn.Linear(512, 8))
    opt = torch.optim.AdamW(model.parameters(), lr=3e-4)
    noise = torch.zeros(48, FEATURES)
    for step in range(1, STEPS + 1):
        if step % TASK_EVERY == 0:
            noise = torch.from_numpy(pool.apply(augment, (step // TASK_EVERY,)))
        x = torch.randn(48, FEATURES)
        y = x[:, :8].argmax(1)
        loss = nn.functional.cross_entropy(model(x + 0.1 * noise), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 240 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    pool.close()
    pool.join()


if __name__ == "__main__":
    main()
