"""Variational autoencoder on toy images; after a warm-up the reconstructions are drawn now and then."""
import io
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
SIDE, LATENT, BATCH, STEPS, WARMUP, DRAW = 24, 8, 64, 4200, 700, 100


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(SIDE * SIDE, 256), nn.ReLU(), nn.Linear(256, 2 * LATENT))
        self.dec = nn.Sequential(nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, SIDE * SIDE))

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.dec(z), mu, logvar


def images(n):
    grid = torch.arange(SIDE).float()
    cx, cy, r = (torch.rand(n, 3) * torch.tensor([14., 14., 4.]) + torch.tensor([5., 5., 2.])).T
    d = (grid[None, None] - cx[:, None, None]) ** 2 + (grid[None, :, None] - cy[:, None, None]) ** 2
    return torch.sigmoid(r[:, None, None] ** 2 - d).flatten(1)


def draw(model, sink):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    with torch.no_grad():
        x = images(8)
        y = torch.sigmoid(model(x)[0])
    fig, axes = plt.subplots(2, 8, figsize=(8, 2.2))
    for k in range(8):
        for row, picture in enumerate((x, y)):
            axes[row, k].imshow(picture[k].view(SIDE, SIDE), cmap="gray")
            axes[row, k].set_title(f"{row}/{k}", fontsize=6)
            axes[row, k].axis("off")
    sink.seek(0)
    fig.savefig(sink, format="png", dpi=110)
    plt.close(fig)


model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
sink = io.BytesIO()
began = time.time()
for step in range(1, STEPS + 1):
    x = images(BATCH)
    logits, mu, logvar = model(x)
    rec = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / BATCH
    kl = -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(-1).mean()
    loss = rec + kl
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step >= WARMUP and step % DRAW == 0:
        draw(model, sink)
    if step % 300 == 0:
        print(f"step {step} loss {loss.item():.2f} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
