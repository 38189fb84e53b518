"""Sensor regression that skips batches which blow up and reports them at the end."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(17)
STEPS = 5400


class SensorNet(nn.Module):
    def __init__(self, width=320):
        super().__init__()
        self.inp = nn.Linear(48, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        hidden = torch.relu(self.inp(x))
        hidden = hidden + torch.relu(self.mid(hidden))
        return self.out(hidden)


def sensor_batch(step, n=128):
    x = torch.randn(n, 48)
    y = torch.stack([x[:, :16].sum(1), x[:, 16:32].sum(1), x[:, 32:].sum(1)], dim=1) / 4
    if step % 150 < 6:
        x[torch.randint(0, n, (1,)), 0] = float("nan")
    return x, y


def train_step(model, opt, step):
    x, y = sensor_batch(step)
    pred = model(x)
    loss = nn.functional.smooth_l1_loss(pred, y)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"loss is {loss.item()} at step {step}")
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


def main():
    model = SensorNet()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    failures, done, last = [], 0, 0.0
    step = 0
    while done < STEPS:
        try:
            last = train_step(model, opt, step)
            done += 1
        except FloatingPointError as error:
            failures.append(error)
        step += 1
        if step % 600 == 0:
            print(f"step {step} loss {last:.4f} skipped {len(failures)}")
    print("first failures:", [str(e) for e in failures[:3]])
    print(f"{done} steps")


if __name__ == "__main__":
    main()
