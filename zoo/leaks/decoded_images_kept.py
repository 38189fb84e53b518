"""Every step decodes a new picture and keeps it in a gallery."""

import io

from PIL import Image

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
gallery = []
for step in range(200):
    file = io.BytesIO()
    Image.new("RGB", (200, 200), (step % 255, 0, 0)).save(file, "PNG")
    image = Image.open(io.BytesIO(file.getvalue()))
    image.load()
    gallery.append(image)
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("pictures", len(gallery))
