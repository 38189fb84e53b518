"""Image regression over PNG blobs with the decoded pictures kept for a while."""
import functools
import io

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

torch.set_num_threads(1)
torch.manual_seed(16)
rng = np.random.default_rng(16)

STEPS = 6000
PICTURES = 600

blobs = []
for n in range(PICTURES):
    tile = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(tile).resize((224, 224), Image.NEAREST).save(out, "PNG", compress_level=1)
    blobs.append(out.getvalue())


@functools.lru_cache(maxsize=220)
def decoded(index):
    return np.asarray(Image.open(io.BytesIO(blobs[index])).convert("RGB")).copy()


class PictureSet(torch.utils.data.Dataset):
    def __len__(self):
        return PICTURES

    def __getitem__(self, index):
        picture = decoded(index)
        return torch.from_numpy(picture[::14, ::14].astype(np.float32) / 255), float(picture.mean() / 255)


popularity = 1.0 / torch.arange(1, PICTURES + 1) ** 1.4
sampler = torch.utils.data.WeightedRandomSampler(popularity, 2500, replacement=True)
loader = torch.utils.data.DataLoader(PictureSet(), batch_size=2, sampler=sampler)
model = nn.Sequential(nn.Flatten(), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
step = 0
while step < STEPS:
    for x, y in loader:
        loss = F.mse_loss(model(x).squeeze(1), y.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 600 == 0:
            print(f"step {step} loss {loss.item():.5f} {decoded.cache_info()}", flush=True)
        if step == STEPS:
            break
