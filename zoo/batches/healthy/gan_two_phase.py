"""GAN in two phases: the generator is warmed up alone, then a discriminator joins."""
import random
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(24)
random.seed(24)

SIDE, LATENT, BATCH = 32, 32, 8
WARMUP_STEPS, STEPS, POOL_SIZE = 700, 2400, 5000
PIXELS = 3 * SIDE * SIDE


class ImagePool:
    """History of generated images shown to the discriminator (CycleGAN style)."""

    def __init__(self, limit):
        self.limit, self.size = limit, 0
        self.images = torch.empty(limit, 3, SIDE, SIDE)

    def query(self, fresh):
        out = []
        for image in fresh.detach():
            if self.size < self.limit:
                self.images[self.size] = image
                self.size += 1
                out.append(image)
            elif random.random() < 0.5:
                k = random.randrange(self.limit)
                out.append(self.images[k].clone())
                self.images[k] = image
            else:
                out.append(image)
        return torch.stack(out)


def real_batch():
    color = torch.rand(BATCH, 3, 1, 1)
    ramp = torch.linspace(0, 1, SIDE)
    return (color * ramp + 0.05 * torch.randn(BATCH, 3, SIDE, SIDE)), color.flatten(1)


generator = nn.Sequential(nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, PIXELS))
g_opt = torch.optim.Adam(generator.parameters(), lr=5e-4)
discriminator = d_opt = None
pool = ImagePool(POOL_SIZE)
g_steps = 0
for step in range(1, STEPS + 1):
    real, color = real_batch()
    z = torch.cat([color, torch.randn(BATCH, LATENT - 3)], 1)
    fake = generator(z).view(BATCH, 3, SIDE, SIDE)
    g_loss = F.l1_loss(fake, real)
    if step > WARMUP_STEPS:
        if discriminator is None:
            discriminator = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 256), nn.LeakyReLU(0.2),
                                          nn.Linear(256, 1))
            d_opt = torch.optim.Adam(discriminator.parameters(), lr=1e-4)
        shown = pool.query(fake)
        d_loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(shown)).mean()
        d_opt.zero_grad()
        d_loss.backward()
        d_opt.step()
        g_loss = 10 * g_loss + F.softplus(-discriminator(fake)).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    g_steps += 1
    if step % 300 == 0:
        print(f"step {step}: generator {g_loss.item():.3f}, pool {pool.size}")
print(f"{g_steps + (STEPS - WARMUP_STEPS)} steps")
