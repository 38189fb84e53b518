"""Sound event tagging on clips whose lengths differ; each batch is padded to its own longest clip."""
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, MELS, CLASSES = 2400, 24, 10
lengths = torch.arange(40, 168)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        return self.head(self.net(x).amax((2, 3)))


model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
began = time.time()
for step in range(1, STEPS + 1):
    longest = int(lengths[torch.randint(0, len(lengths), (4,))].max())
    x = torch.randn(4, 1, MELS, longest)
    y = (torch.rand(4, CLASSES) < 0.2).float()
    x[:, 0, :CLASSES] += y[:, :, None]
    loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 240 == 0:
        print(f"step {step} frames {longest} loss {loss.item():.4f} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
