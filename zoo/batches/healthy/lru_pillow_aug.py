"""Image classifier; JPEGs are decoded with Pillow behind an LRU cache of fixed size."""
import functools
import io
import numpy as np
from PIL import Image
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(8)
rng = np.random.default_rng(8)

N_IMAGES, CACHE_LIMIT, STEPS, BATCH = 4000, 1300, 4000, 6


def make_jpeg(i):
    small = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    small[..., i % 3] //= 2
    buffer = io.BytesIO()
    Image.fromarray(small).resize((64, 64), Image.BILINEAR).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


FILES = [make_jpeg(i) for i in range(N_IMAGES)]


@functools.lru_cache(maxsize=CACHE_LIMIT)
def decoded(i):
    with Image.open(io.BytesIO(FILES[i])) as image:
        array = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def augment(array):
    if rng.random() < 0.5:
        array = array[:, :, ::-1]
    dx = int(rng.integers(-4, 5))
    return np.roll(array, dx, axis=2)


# hard examples are drawn far more often than easy ones
weights = 1.0 / (np.arange(N_IMAGES) + 5) ** 0.8
cumulative = np.cumsum(weights / weights.sum())

model = nn.Sequential(nn.Conv2d(3, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2),
                      nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1, STEPS + 1):
    idx = np.minimum(np.searchsorted(cumulative, rng.random(BATCH)), N_IMAGES - 1)
    x = torch.from_numpy(np.stack([augment(decoded(int(i))) for i in idx]))
    loss = F.cross_entropy(model(x), torch.from_numpy(idx % 3))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 250 == 0:
        info = decoded.cache_info()
        print(f"step {step}: loss {loss.item():.3f}, cache {info.currsize}, hits {info.hits}")
print(f"{STEPS} steps")
