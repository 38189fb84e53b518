"""A layer of noise has a torch.Generator of its own, which no state_dict of a module contains."""

import torch
from torch import nn

import holdwater

torch.manual_seed(15)


class Noise(nn.Module):
    """Adds noise while training, the same in each run whatever else is drawn."""

    def __init__(self, scale, seed):
        super().__init__()
        self.scale = scale
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x):
        if not self.training:
            return x
        return x + self.scale * torch.randn(x.shape, generator=self.generator)


class Denoiser(nn.Module):
    """An auto-encoder of noisy inputs."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(Noise(0.3, seed=150), nn.Linear(10, 4), nn.Tanh())
        self.decoder = nn.Sequential(Noise(0.1, seed=151), nn.Linear(4, 10))

    def forward(self, x):
        return self.decoder(self.encoder(x))


basis = torch.randn(4, 10)
inputs = torch.randn(72, 4) @ basis
model = Denoiser()
optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    x = inputs[torch.randint(0, len(inputs), (12,))]
    loss = nn.functional.mse_loss(model(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
model.eval()
with torch.no_grad():
    print("evaluation", nn.functional.mse_loss(model(inputs), inputs).item().hex())
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
