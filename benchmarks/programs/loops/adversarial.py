"""Two networks with two optimizers learn against each other."""

import torch
from torch import nn

import holdwater
from tiny import data, final, show

real, _ = data()
generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
optimizers = [torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.5, 0.99)) for net in (generator, critic)]
loss_of = nn.BCEWithLogitsLoss()
for name, thing in (("generator", generator), ("critic", critic)):
    holdwater.resumable(name, thing)
for name, optimizer in zip("gc", optimizers, strict=True):
    holdwater.resumable(f"optimizer {name}", optimizer)
for _ in holdwater.steps(60):
    batch = real[torch.randperm(len(real))[:16]]
    fake = generator(torch.randn(16, 4))
    optimizers[1].zero_grad()
    loss = loss_of(critic(batch), torch.ones(16, 1)) + loss_of(critic(fake.detach()), torch.zeros(16, 1))
    loss.backward()
    optimizers[1].step()
    optimizers[0].zero_grad()
    fooled = loss_of(critic(fake), torch.ones(16, 1))
    fooled.backward()
    optimizers[0].step()
    show(loss + fooled)
final(generator, critic)
