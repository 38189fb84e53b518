"""A small autoencoder of shapes; a callback draws a panel of reconstructions now and then."""
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)


def shapes(count):
    yy, xx = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    centre = 4 + 16 * torch.rand(count, 2, 1, 1)
    radius = 2 + 4 * torch.rand(count, 1, 1)
    return (((xx - centre[:, 0]) ** 2 + (yy - centre[:, 1]) ** 2) < radius ** 2).float()


@dataclass
class PanelCallback:
    every: int
    frames: list = field(default_factory=list)

    def __call__(self, step, pictures, model):
        if step % self.every:
            return
        with torch.no_grad():
            again = model(pictures[:8].flatten(1)).view(-1, 24, 24).sigmoid()
        panel = Image.new("RGB", (400, 200))
        for i in range(8):
            tile = np.uint8(255 * again[i].numpy())
            panel.paste(Image.fromarray(tile).resize((96, 96)).convert("RGB"), (100 * (i % 4), 100 * (i // 4)))
        self.frames.append(panel)

    def last(self):
        return self.frames[-1].size


model = nn.Sequential(nn.Linear(576, 256), nn.GELU(), nn.Linear(256, 16), nn.Linear(16, 256), nn.GELU(),
                      nn.Linear(256, 576))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
callback = PanelCallback(every=25)
for step in range(1, 4801):
    pictures = shapes(64)
    loss = nn.functional.binary_cross_entropy_with_logits(model(pictures.flatten(1)), pictures.flatten(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    callback(step, pictures, model)
    if step % 1200 == 0:
        print(f"{step}: loss {loss.item():.4f}, panel {callback.last()}")
print(f"{step} steps")
