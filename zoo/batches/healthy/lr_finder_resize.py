"""LR range test, then training with progressive resizing of the images."""
import copy
import math
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)

N_IMAGES, CLASSES, BATCH = 900, 8, 8
# (resolution, optimizer steps at that resolution)
SCHEDULE = [(32, 450), (48, 450), (64, 400), (80, 1100)]
FINDER_STEPS = 120


def conv(cin, cout):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride=2, padding=1),
                         nn.BatchNorm2d(cout), nn.ReLU())


model = nn.Sequential(conv(3, 16), conv(16, 32), conv(32, 64),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
raw = torch.rand(N_IMAGES, 3, 24, 24)
labels = torch.randint(0, CLASSES, (N_IMAGES,))
raw += 0.2 * labels.view(-1, 1, 1, 1) / CLASSES


def step(optimizer, images):
    idx = torch.randint(0, N_IMAGES, (BATCH,))
    x = images[idx]
    if torch.rand(()) < 0.5:  # multi-scale jitter from a small fixed set
        factor = (0.75, 0.875, 1.125)[int(torch.randint(0, 3, ()))]
        x = F.interpolate(x, scale_factor=factor, mode="bilinear")
    loss = F.cross_entropy(model(x), labels[idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def find_lr():
    backup = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    curve, best_lr, smooth = [], 1e-3, None
    for i in range(FINDER_STEPS):
        lr = 10 ** (-5 + 4.5 * i / FINDER_STEPS)
        optimizer.param_groups[0]["lr"] = lr
        loss = step(optimizer, raw)
        smooth = loss if smooth is None else 0.9 * smooth + 0.1 * loss
        if not math.isfinite(smooth):
            break
        curve.append((smooth, lr))
    best_lr = min(curve)[1] / 3
    model.load_state_dict(backup)
    return best_lr, i + 1


lr, total = find_lr()
print(f"suggested lr {lr:.2e}")
optimizer = torch.optim.SGD(model.parameters(), lr=min(lr, 0.05), momentum=0.9)
for size, n_steps in SCHEDULE:
    # the resized copy of the whole set replaces that of the stage before
    images = F.interpolate(raw, size=size, mode="bilinear")
    for _ in range(n_steps):
        loss = step(optimizer, images)
        total += 1
    print(f"{size}px: loss {loss:.3f}")
print(f"{total} steps")
