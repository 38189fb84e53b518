"""Detection training; the annotations are one long Python list shared with forked workers."""
import random
import time

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

IMAGES = 9000
EPOCHS = 5
BATCH = 16


def read_annotations():
    out = []
    for i in range(IMAGES):
        boxes = [[random.random() * 640 for _ in range(4)] for _ in range(24)]
        out.append({"id": i, "file_name": f"{i:012d}.jpg", "boxes": boxes, "labels": [random.randrange(80) for _ in boxes]})
    return out


class CocoLike(Dataset):
    def __init__(self, annotations):
        self.annotations = annotations

    def __len__(self):
        return len(self.annotations)

    def __getitem__(self, i):
        record = self.annotations[i]
        boxes = torch.tensor(record["boxes"]) / 640
        gen = torch.Generator().manual_seed(i)
        return torch.rand(3, 32, 32, generator=gen), boxes.mean(0), record["labels"][0]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten()
        )
        self.box, self.cls = nn.Linear(32 * 49, 4), nn.Linear(32 * 49, 80)

    def forward(self, x):
        y = self.body(x)
        return self.box(y), self.cls(y)


def main():
    loader = DataLoader(CocoLike(read_annotations()), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    net = Detector()
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    start, step = time.time(), 0
    for epoch in range(EPOCHS):
        for image, box, label in loader:
            pred, score = net(image)
            loss = nn.functional.l1_loss(pred, box) + nn.functional.cross_entropy(score, label)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
            if step % 200 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
