"""Train a denoising autoencoder on an endless synthetic stream."""
import itertools

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

DIM = 512
STEPS = 3000


def stream(batch_size):
    basis = torch.randn(24, DIM)
    while True:
        code = torch.randn(batch_size, 24)
        clean = torch.tanh(code @ basis / 5)
        yield clean


def describe(batches, n):
    seen = torch.stack(list(itertools.islice(batches, n)))
    return seen.mean().item(), seen.std().item()


def main():
    batches, preview = itertools.tee(stream(48))
    mean, std = describe(preview, 16)
    print(f"data mean {mean:.4f} std {std:.4f}", flush=True)

    model = nn.Sequential(
        nn.Linear(DIM, 384), nn.GELU(), nn.Linear(384, 64), nn.GELU(),
        nn.Linear(64, 384), nn.GELU(), nn.Linear(384, DIM),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        clean = next(batches)
        noisy = clean + 0.3 * torch.randn_like(clean)
        loss = nn.functional.mse_loss(model((noisy - mean) / std), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)

    print("final check on", describe(preview, 4))


if __name__ == "__main__":
    main()
