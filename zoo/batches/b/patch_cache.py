import functools
import io

import numpy as np
import torch
import torch.nn as nn
from PIL import Image

torch.set_num_threads(1)
torch.manual_seed(1)


def render_slide(index, size=224):
    rng = np.random.default_rng(index)
    yy, xx = np.mgrid[:size, :size] / size
    image = np.stack([np.sin(xx * f + yy * g) for f, g in rng.uniform(3, 25, (3, 2))], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(((image + 1) * 127).astype(np.uint8)).save(stream, format="JPEG", quality=80)
    return stream.getvalue()


class SlidePatches:
    def __init__(self, slides):
        self.encoded = [render_slide(i) for i in range(slides)]
        self.labels = np.random.default_rng(7).integers(0, 4, slides)

    @functools.lru_cache(maxsize=260)
    def decode(self, index):
        image = Image.open(io.BytesIO(self.encoded[index])).convert("RGB")
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255

    def patch(self, index, rng, size=48):
        image = self.decode(index)
        top, left = rng.integers(0, image.shape[1] - size, 2)
        return image[:, top:top + size, left:left + size].copy(), self.labels[index]


rng = np.random.default_rng(3)
data = SlidePatches(420)
net = nn.Sequential(
    nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
order = rng.zipf(1.15, 20_000) % 420
cursor = 0
for step in range(1, 1601):
    picked = order[cursor:cursor + 12]
    cursor += 12
    patches, labels = zip(*(data.patch(int(i), rng) for i in picked))
    x, y = torch.from_numpy(np.stack(patches)), torch.tensor(np.array(labels))
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        info = data.decode.cache_info()
        print(f"step {step} loss {loss.item():.3f} hit rate {info.hits / (info.hits + info.misses):.2f}")
print(f"{step} steps")
