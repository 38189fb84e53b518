"""Train a small CNN with a replayable augmentation pipeline."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(3)
rng = np.random.default_rng(3)
BATCH, SIDE, CLASSES, STEPS = 8, 48, 6, 2600


class ReplayCompose:
    """Applies each transform with its probability and records how it was applied."""

    def __init__(self, transforms):
        self.transforms = transforms
        self.applied = []

    def __call__(self, images):
        record = {"transforms": []}
        for transform, p in self.transforms:
            if rng.random() < p:
                images, params = transform(images)
                record["transforms"].append({"name": transform.__name__, "params": params})
        self.applied.append(record)
        return images


def horizontal_flip(images):
    return images[:, :, :, ::-1], {}


def brightness(images):
    alpha = float(rng.uniform(0.8, 1.2))
    return images * alpha, {"alpha": alpha}


def gauss_noise(images):
    gauss = rng.standard_normal(images.shape, dtype=np.float32)
    gauss *= np.float32(rng.uniform(0.02, 0.1))
    return images + gauss, {"gauss": gauss}


pipeline = ReplayCompose([(horizontal_flip, 0.5), (brightness, 0.5), (gauss_noise, 0.4)])
model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
pool = rng.random((256, 3, SIDE, SIDE), dtype=np.float32)
labels = rng.integers(0, CLASSES, 256)

for step in range(STEPS):
    pick = rng.integers(0, len(pool), BATCH)
    images = np.ascontiguousarray(pipeline(pool[pick]), dtype=np.float32)
    logits = model(torch.from_numpy(images))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[pick]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 500 == 0:
        names = [t["name"] for t in pipeline.applied[-1]["transforms"]]
        print(f"step {step} loss {loss.item():.4f} last augmentation {names}")
print(f"{STEPS} steps")
