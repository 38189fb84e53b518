"""Train a small ConvNet; batches that give a non-finite loss are skipped and reported."""
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 2000


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 36, 10)

    def forward(self, x):
        h = torch.relu(self.conv1(x))
        h = nn.functional.max_pool2d(torch.relu(self.conv2(h)), 4)
        return self.fc(h.flatten(1))


def load_batch(step):
    x = torch.rand(24, 1, 24, 24)
    y = (x[:, 0, :10, :10].mean(2)).argmax(1)
    if torch.rand(()) < 0.09:
        x[torch.randint(0, 24, ())] = float("nan")
    return x, y


def train_step(model, optimizer, x, y):
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, y)
    if not torch.isfinite(loss):
        bad = torch.isnan(x).flatten(1).any(1).nonzero().flatten().tolist()
        raise FloatingPointError(f"non-finite loss, samples {bad}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    errors = {}
    done = 0
    attempt = 0
    while done < STEPS:
        attempt += 1
        x, y = load_batch(attempt)
        try:
            loss = train_step(model, optimizer, x, y)
        except FloatingPointError as err:
            errors[attempt] = err
            continue
        done += 1
        if done % 100 == 0:
            print(f"step {done} loss {loss:.4f} skipped {len(errors)}", flush=True)
    for attempt, err in list(errors.items())[:5]:
        print(f"batch {attempt}: {err}")


if __name__ == "__main__":
    main()
