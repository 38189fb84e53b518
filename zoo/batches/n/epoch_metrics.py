"""Training that keeps the predictions of an epoch for its metrics and starts anew with the next epoch."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
EPOCHS, STEPS_PER_EPOCH, LABELS = 24, 200, 800


class EpochMetrics:
    def __init__(self):
        self.reset()

    def reset(self):
        self.logits, self.targets = [], []

    def update(self, logits, targets):
        self.logits.append(logits.detach().numpy().copy())
        self.targets.append(targets.numpy())

    def compute(self):
        right = sum(int((l.argmax(1) == t).sum()) for l, t in zip(self.logits, self.targets))
        return right / sum(len(t) for t in self.targets)


def main():
    model = nn.Sequential(nn.Linear(256, 384), nn.GELU(), nn.Linear(384, LABELS))
    opt = torch.optim.AdamW(model.parameters(), lr=5e-4)
    metrics = EpochMetrics()
    for epoch in range(EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            x = torch.randn(80, 256)
            y = (x[:, 0].abs() * 200).long().clamp(max=LABELS - 1)
            logits = model(x)
            loss = nn.functional.cross_entropy(logits, y)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            metrics.update(logits, y)
        print(f"epoch {epoch} loss {loss.item():.4f} accuracy {metrics.compute():.4f}", flush=True)
        metrics.reset()


if __name__ == "__main__":
    main()
