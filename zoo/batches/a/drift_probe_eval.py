import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, EVAL_EVERY = 1000, 20


class SmallNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                                  nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(32 * 16, classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).flatten(1))


def watch_drift(model, images, report):
    """Report how far the stem's response to the probe images moves after this evaluation."""
    with torch.no_grad():
        baseline = model.stem(images).flatten(1)

    def compare(module, args, output):
        if not module.training and output.shape[0] == baseline.shape[0]:
            report["drift"] = float((output.flatten(1) - baseline).norm())

    model.stem.register_forward_hook(compare)


def evaluate(model, images, labels, report):
    model.eval()
    with torch.no_grad():
        report["accuracy"] = float((model(images).argmax(1) == labels).float().mean())
    watch_drift(model, images[:16], report)
    model.train()


def main():
    model = SmallNet()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    train_x, train_y = torch.randn(1024, 3, 32, 32), torch.randint(0, 10, (1024,))
    val_x, val_y = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    report = {}
    for step in range(1, STEPS + 1):
        pick = torch.randint(0, 1024, (32,))
        loss = F.cross_entropy(model(train_x[pick]), train_y[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVAL_EVERY == 0:
            evaluate(model, val_x, val_y, report)
            if step % 200 == 0:
                print(step, round(loss.item(), 4), report, flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
