import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(27)


def scene(rng, size=144):
    image = rng.random((size, size, 3), dtype=np.float32)
    top, left = rng.integers(0, size - 40, 2)
    kind = int(rng.integers(0, 3))
    image[top:top + 40, left:left + 40, kind] += 0.15 * float(rng.integers(1, 6))
    return image, (int(top), int(left)), kind


def make_miner(quantile=0.975):
    kept, recent = {}, []

    def consider(number, crop, loss):
        recent.append(loss)
        del recent[:-400]
        if len(recent) > 50 and loss > np.quantile(recent, quantile):
            kept[number] = crop
        return len(kept)

    def draw(rng, n):
        numbers = list(kept)
        return [kept[numbers[i]] for i in rng.integers(0, len(numbers), n)] if numbers else []

    return consider, draw


class CropNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
        )

    def forward(self, x):
        return self.net(x.permute(0, 3, 1, 2))


rng = np.random.default_rng(6)
consider, draw = make_miner()
model = CropNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
number = 0
for step in range(1, 2201):
    crops, kinds = [], []
    for _ in range(8):
        image, (top, left), kind = scene(rng)
        crops.append(image[top:top + 40, left:left + 40])
        kinds.append(kind)
    logits = model(torch.from_numpy(np.stack(crops)))
    losses = nn.functional.cross_entropy(logits, torch.tensor(kinds), reduction="none")
    contrast = sum(float(np.std(c)) for c in draw(rng, 4))
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()
    for crop, loss in zip(crops, losses.tolist()):
        hard = consider(number, crop, loss)
        number += 1
    if step % 200 == 0:
        print(f"step {step} loss {losses.mean().item():.4f} hard {hard} contrast {contrast:.3f}")
print(f"{step} steps over {number} scenes")
