import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(42)
USERS, ITEMS, DIM = 150_000, 40_000, 80


class Factorization(nn.Module):
    def __init__(self):
        super().__init__()
        self.user = nn.Embedding(USERS, DIM, sparse=True)
        self.item = nn.Embedding(ITEMS, DIM, sparse=True)
        nn.init.normal_(self.user.weight, std=0.05)
        nn.init.normal_(self.item.weight, std=0.05)

    def forward(self, user, item):
        return (self.user(user) * self.item(item)).sum(1)


def ratings(n=60_000):
    user = (torch.rand(n) ** 2 * USERS).long()
    item = (torch.rand(n) ** 2 * ITEMS).long()
    score = torch.sin(user * 0.37) * torch.cos(item * 0.11) + 0.1 * torch.randn(n)
    return user, item, score


def folds(n, k):
    order = torch.randperm(n)
    for part in range(k):
        held_out = torch.zeros(n, dtype=torch.bool)
        held_out[order[part::k]] = True
        yield (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


def fit_fold(train, valid, data, batch=512, passes=3):
    user, item, score = data
    model = Factorization()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    steps = 0
    for _ in range(passes):
        for rows in train[torch.randperm(len(train))].split(batch):
            loss = (model(user[rows], item[rows]) - score[rows]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    with torch.no_grad():
        error = (model(user[valid], item[valid]) - score[valid]).pow(2).mean().item()
    return error, steps


def fit_biases(train, valid, data, batch=512, passes=5):
    user, item, score = data
    by_user, by_item = torch.zeros(USERS, requires_grad=True), torch.zeros(ITEMS, requires_grad=True)
    optimizer = torch.optim.SGD([by_user, by_item], lr=2.0)
    for _ in range(passes):
        for rows in train[torch.randperm(len(train))].split(batch):
            loss = (by_user[user[rows]] + by_item[item[rows]] - score[rows]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (by_user[user[valid]] + by_item[item[valid]] - score[valid]).pow(2).mean().item()


data = ratings()
errors, total = [], 0
for fold, (train, valid) in enumerate(folds(len(data[0]), 14)):
    error, steps = fit_fold(train, valid, data)
    baseline = fit_biases(train, valid, data)
    errors.append(error)
    total += steps
    print(f"fold {fold} error {error:.4f} biases alone {baseline:.4f}")
print(f"mean {sum(errors) / len(errors):.4f} over {total} steps")
