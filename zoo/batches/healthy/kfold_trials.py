"""Grid of widths and learning rates, each scored with 5-fold cross-validation."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(21)

N, DIM, CLASSES, FOLDS, STEPS_PER_FOLD = 1000, 64, 7, 5, 110
GRID = [dict(width=128, lr=1e-3), dict(width=384, lr=1e-3), dict(width=768, lr=1e-3),
        dict(width=1152, lr=3e-4), dict(width=384, lr=3e-4), dict(width=768, lr=3e-4),
        dict(width=1152, lr=1e-4)]

labels = torch.randint(0, CLASSES, (N,))
data = torch.randn(CLASSES, DIM)[labels] * 0.5 + torch.randn(N, DIM)
fold_of = torch.arange(N) % FOLDS


def build(width):
    return nn.Sequential(nn.Linear(DIM, width), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES))


def run_fold(config, fold):
    """Trains a fresh model on the other folds; returns validation accuracy and steps."""
    train = (fold_of != fold).nonzero().squeeze(1)
    val = (fold_of == fold).nonzero().squeeze(1)
    model = build(config["width"])
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    for _ in range(STEPS_PER_FOLD):
        idx = train[torch.randint(0, len(train), (32,))]
        loss = F.cross_entropy(model(data[idx]), labels[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(data[val]).argmax(1) == labels[val]).float().mean().item()
    return accuracy, STEPS_PER_FOLD


total, results = 0, []
for config in GRID:
    scores = []
    for fold in range(FOLDS):
        accuracy, steps = run_fold(config, fold)
        scores.append(accuracy)
        total += steps
    mean = sum(scores) / FOLDS
    results.append((mean, config))
    print(f"{config}: {mean:.3f}")
print("best:", max(results, key=lambda r: r[0]))
print(f"{total} steps")
