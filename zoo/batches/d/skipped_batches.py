"""Fraud classifier that skips batches whose loss is not sane and reports them after training."""
import torch
from torch import nn

torch.manual_seed(8)


class BadBatch(RuntimeError):
    pass


class Trainer:
    def __init__(self):
        torch.set_num_threads(1)
        self.gen = torch.Generator().manual_seed(8)
        self.model = nn.Sequential(nn.Linear(256, 192), nn.ELU(), nn.Dropout(0.1), nn.Linear(192, 1))
        self.opt = torch.optim.NAdam(self.model.parameters(), lr=1e-3)
        self.failures = []

    def load(self):
        features = torch.randn(256, 256, generator=self.gen)
        if torch.rand((), generator=self.gen) < 0.04:
            features[3] *= 1e4
        return features, (features[:, :4].sum(1) > 0).float()

    def train_step(self):
        batch, target = self.load()
        logits = self.model(batch).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        if batch.abs().max() > 50 or not torch.isfinite(loss):
            raise BadBatch(f"loss {loss.item():.1f}")
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()

    def fit(self, steps):
        done = 0
        while done < steps:
            try:
                self.train_step()
                done += 1
            except BadBatch as problem:
                self.failures.append(problem)
            if done % 1400 == 0:
                print(f"{done} done, {len(self.failures)} skipped")
        return done


if __name__ == "__main__":
    trainer = Trainer()
    count = trainer.fit(5600)
    print("skipped:", *sorted({str(p) for p in trainer.failures})[:3])
    print(f"{count} steps")
