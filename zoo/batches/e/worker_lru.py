"""Patch classifier on JPEG slides decoded in a loader worker."""
import io
from collections import OrderedDict

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(16)
SLIDES, LIMIT, BATCH, SIDE, STEPS = 5000, 2400, 4, 112, 1900


class SlideSequence(Dataset):
    """Slides are stored as JPEG bytes and decoded on demand."""

    def __init__(self):
        rng = np.random.default_rng(16)
        self.encoded = []
        for kind in range(16):
            tile = np.kron(rng.integers(0, 256, (7, 7, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            out = io.BytesIO()
            Image.fromarray(tile).save(out, "JPEG", quality=80)
            self.encoded.append(out.getvalue())
        self.recent = OrderedDict()

    def __len__(self):
        return BATCH * STEPS

    def slide(self, index):
        if index in self.recent:
            self.recent.move_to_end(index)
        else:
            self.recent[index] = np.array(Image.open(io.BytesIO(self.encoded[index % 16])))
            if len(self.recent) > LIMIT:
                self.recent.popitem(last=False)
        return self.recent[index]

    def __getitem__(self, position):
        rng = np.random.default_rng(position)
        index = int(rng.integers(0, SLIDES))
        top, left = rng.integers(0, SIDE - 48, 2)
        patch = self.slide(index)[top:top + 48, left:left + 48].astype(np.float32) / 255
        return torch.from_numpy(patch).permute(2, 0, 1).contiguous(), index % 4


def main():
    torch.set_num_threads(1)
    loader = DataLoader(SlideSequence(), batch_size=BATCH, num_workers=1, prefetch_factor=2)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3, stride=2), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for step, (patches, labels) in enumerate(loader):
        loss = nn.functional.cross_entropy(model(patches), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    print(f"{step + 1} steps")


if __name__ == "__main__":
    main()
