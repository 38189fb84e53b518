"""Pairwise preference training with per-split metric averaging."""
from collections import defaultdict

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(7)
STEPS = 6000


class Scorer(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 160), nn.Tanh(), nn.Linear(160, 160), nn.Tanh(), nn.Linear(160, 1))

    def forward(self, pairs):
        return self.net(pairs).squeeze(-1)


class PreferenceTrainer:
    def __init__(self, beta=0.3):
        self.model = Scorer()
        self.beta = beta
        self.opt = torch.optim.Adam(self.model.parameters(), lr=3e-4)
        self.stored = defaultdict(lambda: defaultdict(list))

    def store_metrics(self, metrics, split):
        for key, value in metrics.items():
            self.stored[split][key].append(value)

    def batch_metrics(self, chosen, rejected):
        margins = self.beta * (self.model(chosen) - self.model(rejected))
        loss = -nn.functional.logsigmoid(margins).mean()
        return loss, {"margins": margins.mean(), "accuracy": (margins > 0).float().mean()}

    def train_step(self, chosen, rejected):
        loss, metrics = self.batch_metrics(chosen, rejected)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.store_metrics(metrics, "train")

    def prediction_step(self, chosen, rejected):
        loss, metrics = self.batch_metrics(chosen, rejected)
        self.store_metrics(metrics, "eval")
        return float(loss)

    def log(self):
        summary = {k: torch.stack(v).mean().item() for k, v in self.stored["train"].items()}
        del self.stored["train"]
        return summary


def draw(n, direction):
    chosen, rejected = torch.randn(n, 64), torch.randn(n, 64)
    return chosen + 0.2 * direction, rejected


def main():
    direction = torch.randn(64)
    trainer = PreferenceTrainer()
    for step in range(1, STEPS + 1):
        trainer.train_step(*draw(160, direction))
        if step % 50 == 0:
            held_out = sum(trainer.prediction_step(*draw(48, direction)) for _ in range(6)) / 6
            summary = trainer.log()
            if step % 500 == 0:
                print(f"step {step} eval {held_out:.4f} acc {summary['accuracy']:.3f}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
