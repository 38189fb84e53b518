"""Two loader workers read a list of annotations that they share with the main process."""
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(47)
EPOCHS, SAMPLES, BATCH = 4, 24_000, 32
FEATURES, CLASSES = 64, 10


class Annotations(Dataset):
    """One dict for each picture, with its boxes and its caption, as a parsed json file gives them."""

    def __init__(self):
        rng = random.Random(2)
        self.records = [
            {
                "file": f"images/{number:07d}.jpg",
                "boxes": [[rng.random() for _ in range(4)] for _ in range(6)],
                "caption": " ".join(f"word{rng.randrange(5000)}" for _ in range(24)),
                "label": rng.randrange(CLASSES),
            }
            for number in range(SAMPLES)
        ]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        boxes = torch.tensor(record["boxes"]).flatten()
        features = torch.zeros(FEATURES)
        features[: len(boxes)] = boxes
        features[32 + record["label"]] = 1.0
        features[-1] = len(record["caption"]) / 200
        return features, record["label"]


def main():
    loader = DataLoader(Annotations(), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    layers = [nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    step = 0
    for _ in range(EPOCHS):
        for features, labels in loader:
            loss = nn.functional.cross_entropy(model(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 200 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
            step += 1
    print(f"{step} steps")


if __name__ == "__main__":
    main()
