"""Speech-like training: 1-d convolutions over utterances whose length grows by a curriculum."""
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
STEPS, RAMP = 4500, 1600
LENGTHS = list(range(80, 400, 10))


class Acoustic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(20, 48, 5, padding=2), nn.ReLU(),
            nn.Conv1d(48, 48, 5, padding=2, stride=2), nn.ReLU(),
            nn.Conv1d(48, 64, 3, padding=1), nn.ReLU(),
        )
        self.head = nn.Linear(64, 12)

    def forward(self, x):
        return self.head(self.conv(x).mean(-1))


def main():
    model = Acoustic()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        allowed = max(1, min(len(LENGTHS), len(LENGTHS) * (step + 1) // RAMP))
        length = LENGTHS[allowed - 1] if step < RAMP else random.choice(LENGTHS)
        x = torch.randn(8, 20, length)
        y = x.mean(-1)[:, :12].argmax(1)
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 450 == 0:
            print(f"step {step} longest {LENGTHS[allowed - 1]} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
