import io
import random

import numpy as np
import torch
from PIL import Image
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(11)
random.seed(11)
IMAGES, SIDE, STEPS = 1200, 160, 1800


def compressed_images(count):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, size=(count, 12, 12, 3), dtype=np.uint8)
    for pixels in small:
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        yield buffer.getvalue()


class ImageStore:
    """Decodes an image when it is wanted for the first time."""

    def __init__(self, count):
        self.files = list(compressed_images(count))
        self.decoded = {}

    def __getitem__(self, index):
        if index not in self.decoded:
            image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
            self.decoded[index] = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return self.decoded[index]

    def draw(self, count):
        picked = [random.randrange(len(self.files)) for _ in range(count)]
        return torch.stack([self[i] for i in picked]).float() / 255, torch.tensor(picked) % 10


def main():
    store = ImageStore(IMAGES)
    model = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2),
                          nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(216, 10))
    print("images", len(store.files), flush=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(1, STEPS + 1):
        images, labels = store.draw(6)
        for view in (images, images.flip(-1)):
            loss = nn.functional.cross_entropy(model(view), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % 150 == 0:
            print(step, f"{loss.item():.4f}", flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
