import functools
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(2)
random.seed(2)
PATCH = 4
STEPS = 2600


@functools.lru_cache(maxsize=None)
def anchor_grid(rows, cols, scales=(8.0, 16.0, 32.0)):
    ys, xs = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    centres = torch.stack([xs, ys, xs, ys], dim=-1).float() * PATCH
    offsets = torch.tensor([[-s, -s, s, s] for s in scales]) / 2
    return (centres.reshape(-1, 1, 4) + offsets).contiguous()


class PatchDetector(nn.Module):
    def __init__(self, width=32, anchors=3):
        super().__init__()
        self.embed = nn.Linear(3 * PATCH * PATCH, width)
        self.head = nn.Linear(width, anchors * 5)

    def forward(self, images):
        b, c, h, w = images.shape
        rows, cols = h // PATCH, w // PATCH
        patches = images.reshape(b, c, rows, PATCH, cols, PATCH).permute(0, 2, 4, 1, 3, 5)
        tokens = torch.relu(self.embed(patches.reshape(b, rows * cols, -1)))
        raw = self.head(tokens).reshape(b, rows * cols, 3, 5)
        boxes = anchor_grid(rows, cols) + raw[..., :4]
        return boxes, raw[..., 4]


class MultiScaleSampler:
    """Keeps one image size for a few batches, then draws another one."""

    def __init__(self):
        self.left = 0

    def __call__(self):
        if self.left == 0:
            self.size = PATCH * random.randint(25, 90), PATCH * random.randint(25, 90)
            self.left = random.randint(4, 10)
        self.left -= 1
        return torch.rand(2, 3, *self.size)


def main():
    model, sampler = PatchDetector(), MultiScaleSampler()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        images = sampler()
        boxes, objectness = model(images)
        inside = (boxes[..., 0] > 0) & (boxes[..., 2] < images.shape[-1])
        loss = nn.functional.binary_cross_entropy_with_logits(objectness, inside.float()) + boxes.pow(2).mean() * 1e-6
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 400 == 0:
            print(step, tuple(images.shape[-2:]), f"{loss.item():.4f}", flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
