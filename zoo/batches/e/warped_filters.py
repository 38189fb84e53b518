"""Audio frame classifier; one filter operator is built per vocal-tract warp and length."""
import functools
import math
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)
random.seed(12)
FRAME, STEPS, BATCH, CLASSES, STEPS_PER_SPEAKER = 320, 3600, 96, 10, 9


@functools.lru_cache(maxsize=160)
def warped_basis(alpha):
    """Cosine basis on a warped frequency axis, ready to be applied to a batch of frames."""
    time = torch.arange(FRAME, dtype=torch.float32) + 0.5
    frequency = torch.arange(FRAME, dtype=torch.float32)
    warped = frequency * alpha + 0.02 * frequency * (frequency / FRAME)
    return torch.cos(math.pi / FRAME * time[:, None] * warped[None, :])


class Speaker:
    def __init__(self):
        self.alpha = round(random.uniform(0.85, 1.15), 6)
        self.pitch = random.uniform(4, 9)

    def frames(self):
        label = torch.randint(0, CLASSES, (BATCH,))
        time = torch.arange(FRAME) / FRAME
        tone = torch.sin(2 * math.pi * (self.pitch + 3 * label[:, None]) * time[None, :])
        return tone + 0.3 * torch.randn(BATCH, FRAME), label


class FrameNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FRAME, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))

    def forward(self, frames, alpha):
        spectrum = (frames @ warped_basis(alpha)).abs().clamp_min(1e-5).log()
        return self.layers(spectrum)


model = FrameNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for step in range(STEPS):
    if step % STEPS_PER_SPEAKER == 0:
        speaker = Speaker()
    frames, label = speaker.frames()
    loss = nn.functional.cross_entropy(model(frames, speaker.alpha), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 600 == 0:
        print(f"step {step} loss {loss.item():.4f} {warped_basis.cache_info()}")
print(f"{STEPS} steps")
