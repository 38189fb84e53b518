"""Multilabel training; average precision over all scores of an epoch."""
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

EPOCHS = 4
BATCHES = 340
LABELS = 400


class AveragePrecision:
    def __init__(self):
        self.reset()

    def reset(self):
        self.scores = []
        self.targets = []

    def update(self, scores, targets):
        self.scores.append(scores.detach().clone())
        self.targets.append(targets.clone())

    def compute(self):
        total = 0.0
        for label in range(LABELS):
            s = torch.cat([x[:, label] for x in self.scores])
            t = torch.cat([x[:, label] for x in self.targets])
            t = t[s.argsort(descending=True)]
            precision = t.cumsum(0) / torch.arange(1, len(t) + 1)
            total += float((precision * t).sum() / t.sum().clamp(min=1))
        return total / LABELS


def main():
    model = nn.Sequential(nn.Linear(128, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, LABELS))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    metric = AveragePrecision()
    mix = torch.randn(128, LABELS)
    step = 0
    for epoch in range(EPOCHS):
        for _ in range(BATCHES):
            x = torch.randn(128, 128)
            y = (x @ mix > 12).float()
            logits = model(x)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            metric.update(logits, y)
            step += 1
            if step % 20 == 0:
                print(f"step {step} epoch {epoch} loss {loss.item():.4f}", flush=True)
        print(f"epoch {epoch} average precision {metric.compute():.4f}", flush=True)
        metric.reset()


if __name__ == "__main__":
    main()
