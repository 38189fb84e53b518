"""A convolutional classifier on crops of many sizes, which are drawn anew for every batch."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(18)
STEPS = 3000
SMALLEST, LARGEST, CLASSES = 10, 27, 6


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def crop_batch():
    height, width = torch.randint(SMALLEST, LARGEST + 1, (2,)).tolist()
    labels = torch.randint(0, CLASSES, (4,))
    images = torch.randn(4, 3, height, width) + labels[:, None, None, None] / CLASSES
    return images, labels, (height, width)


def main():
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sizes = set()
    for step in range(STEPS):
        images, labels, size = crop_batch()
        sizes.add(size)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} sizes {len(sizes)}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
