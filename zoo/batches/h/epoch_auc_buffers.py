"""Features and scores of the whole epoch are kept for the epoch's AUC, then dropped."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(25)

EPOCHS, STEPS_PER_EPOCH, BATCH, WIDTH = 11, 280, 64, 768


class EpochAUROC:
    def __init__(self, rows, width):
        self.rows, self.width = rows, width
        self.reset()

    def reset(self):
        self.filled = 0
        self.features = torch.empty(self.rows, self.width)
        self.scores = torch.empty(self.rows)
        self.targets = torch.empty(self.rows)

    def update(self, features, scores, targets):
        where = slice(self.filled, self.filled + len(scores))
        self.features[where] = features.detach()
        self.scores[where] = scores.detach()
        self.targets[where] = targets
        self.filled += len(scores)

    def compute(self):
        s, t = self.scores[:self.filled], self.targets[:self.filled]
        rank = torch.empty_like(s)
        rank[s.argsort()] = torch.arange(1, len(s) + 1, dtype=s.dtype)
        pos = t.sum()
        auc = (rank[t.bool()].sum() - pos * (pos + 1) / 2) / (pos * (len(t) - pos))
        return auc.item(), self.features[:self.filled].mean().item()


def main():
    body = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    head = nn.Linear(WIDTH, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-4)
    metric = EpochAUROC(STEPS_PER_EPOCH * BATCH, WIDTH)
    for epoch in range(EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            x = torch.randn(BATCH, 64)
            y = (x[:, :3].sum(1) + torch.randn(BATCH) > 0).float()
            feats = body(x)
            logits = head(feats).squeeze(1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            metric.update(feats, logits, y)
        auc, level = metric.compute()
        metric.reset()
        print(f"epoch {epoch} auc {auc:.4f} mean feature {level:.3f}", flush=True)


if __name__ == "__main__":
    main()
