"""Top-k compression keeps what it leaves out in a registered dictionary whose keys are the parameters."""

import torch
from torch import nn

import holdwater

torch.manual_seed(14)


class TopK:
    """Sends the largest entries of a gradient, and adds the rest to the next one (Stich et al., 2018)."""

    def __init__(self, share):
        self.share = share
        self.residuals = {}

    @torch.no_grad()
    def compress(self, parameters):
        for parameter in parameters:
            gradient = parameter.grad + self.residuals.get(parameter, torch.zeros(()))
            kept = max(1, int(self.share * gradient.numel()))
            least = gradient.abs().flatten().topk(kept).values[-1]
            sent = torch.where(gradient.abs() >= least, gradient, torch.zeros(()))
            self.residuals[parameter] = gradient - sent
            parameter.grad.copy_(sent)


inputs = torch.randn(64, 8)
targets = (inputs[:, :3].sum(1, keepdim=True)).tanh()
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=5e-2)
compressor = TopK(share=0.1)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("residuals", compressor.residuals)

for _ in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (16,))
    loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    compressor.compress(model.parameters())
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("residual", *(r.double().sum().item().hex() for r in compressor.residuals.values()))
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
