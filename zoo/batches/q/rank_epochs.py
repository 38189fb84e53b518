"""Matrix factorisation; at the end of an epoch the scores of its users are ranked and thrown away."""
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
USERS, ITEMS, DIM, BATCH, EPOCHS, STEPS_PER_EPOCH = 4000, 1500, 64, 256, 24, 200


class Factor(nn.Module):
    def __init__(self):
        super().__init__()
        self.user = nn.Embedding(USERS, DIM)
        self.item = nn.Embedding(ITEMS, DIM)

    def forward(self, u):
        return self.user(u) @ self.item.weight.T


class Metric:
    def __init__(self):
        self.reset()

    def reset(self):
        self.scores, self.targets = [], []

    def update(self, score, target):
        self.scores.append(score.detach().clone())
        self.targets.append(target)

    def compute(self):
        hits = [(s.topk(20).indices == t[:, None]).any(1).float() for s, t in zip(self.scores, self.targets)]
        return torch.cat(hits).mean().item()


model, metric = Factor(), Metric()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
began, step = time.time(), 0
for epoch in range(EPOCHS):
    for _ in range(STEPS_PER_EPOCH):
        u = torch.randint(0, USERS, (BATCH,))
        i = (u * 7 + torch.randint(0, 12, (BATCH,))) % ITEMS
        score = model(u)
        loss = nn.functional.cross_entropy(score, i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metric.update(score[:64], i[:64])
        step += 1
    print(f"epoch {epoch} loss {loss.item():.4f} hit@20 {metric.compute():.4f} {time.time() - began:.1f}s", flush=True)
    metric.reset()
print("steps", step)
