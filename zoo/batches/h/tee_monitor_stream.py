"""Train a denoising autoencoder from an endless stream; a second branch of the stream feeds the monitor."""
import itertools

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 3600
BATCH, DIM = 64, 256


def sensor_stream():
    basis = torch.randn(24, DIM)
    while True:
        x = torch.randn(BATCH, 24) @ basis
        yield x


def main():
    train_stream, monitor_stream = itertools.tee(sensor_stream())

    layers = [nn.Linear(DIM, DIM)]
    for _ in range(6):
        layers += [nn.ReLU(), nn.Linear(DIM, DIM)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = nn.MSELoss()

    for step in range(1, STEPS + 1):
        x = next(train_stream)
        noisy = x + 0.3 * torch.randn_like(x)
        loss = loss_fn(model(noisy), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        if step % 300 == 0:
            # the monitor looks at a batch of the same stream, in its own pace
            with torch.no_grad():
                probe = next(monitor_stream)
                val = loss_fn(model(probe), probe)
            print(f"step {step} loss {loss.item():.4f} monitor {val.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
