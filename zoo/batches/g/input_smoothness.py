"""Regression with a penalty on the gradient of the loss with respect to the inputs, every fourth step."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)
STEPS = 3200
PENALTY_EVERY = 4
FEATURES = 512


def make_model():
    return nn.Sequential(nn.Linear(FEATURES, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 1))


def smooth_loss(model, x, y):
    """The squared error, and a backward pass through its gradient for the inputs."""
    x.requires_grad_(True)
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward(create_graph=True)
    penalty = 10.0 * x.grad.pow(2).sum()
    penalty.backward()
    return loss.detach(), penalty.detach()


def plain_loss(model, x, y):
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss.detach(), torch.zeros(())


def main():
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    weights = torch.randn(FEATURES, 1) / FEATURES ** 0.5
    for step in range(STEPS):
        x = torch.randn(56, FEATURES)
        y = torch.sin(x @ weights)
        optimizer.zero_grad(set_to_none=True)
        measure = smooth_loss if step % PENALTY_EVERY == 0 else plain_loss
        loss, penalty = measure(model, x, y)
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss:.4f} penalty {penalty:.6f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
