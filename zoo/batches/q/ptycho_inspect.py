"""Fit a probe and an object from magnitudes, with a panel that follows the fit."""
import time

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
SIDE, STEPS, INSPECT = 96, 5500, 20

truth = torch.randn(SIDE, SIDE, dtype=torch.cfloat)
masks = torch.randn(8, SIDE, SIDE, dtype=torch.cfloat)
measured = torch.fft.fft2(truth * masks).abs()


class Object(nn.Module):
    def __init__(self):
        super().__init__()
        self.re = nn.Parameter(torch.randn(SIDE, SIDE) * 0.1)
        self.im = nn.Parameter(torch.randn(SIDE, SIDE) * 0.1)

    def forward(self, m):
        return torch.fft.fft2(torch.complex(self.re, self.im) * m)


class Panel:
    def __init__(self):
        self.fig, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
        self.image = left.imshow(torch.zeros(SIDE, SIDE).numpy(), vmin=0, vmax=2)
        (self.curve,) = right.plot([], [])
        self.frame = 0
        self.title = left.set_title("frame 0")

    def refresh(self, model, losses):
        with torch.no_grad():
            frames = torch.stack([model(m).abs() for m in masks])

        def show(artist):
            self.image.set_data(frames[self.frame % len(frames)].numpy())
            self.title.set_text(f"frame {self.frame % len(frames)}")

        self.curve.add_callback(show)
        self.frame += 1
        self.curve.set_data(range(len(losses)), losses)
        self.fig.canvas.draw()


model = Object()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
panel = Panel()
recent = []
began = time.time()
for step in range(1, STEPS + 1):
    optimizer.zero_grad()
    loss = ((model(masks).abs() - measured) ** 2).mean()
    loss.backward()
    optimizer.step()
    if step % INSPECT == 0:
        recent = (recent + [loss.item()])[-50:]
        panel.refresh(model, recent)
    if step % 250 == 0:
        print(f"iter {step} loss {loss.item():.3f} {time.time() - began:.1f}s", flush=True)
plt.close("all")
print("steps", STEPS)
