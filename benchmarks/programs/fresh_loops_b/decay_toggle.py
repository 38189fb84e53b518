"""Weight decay is switched on and off by an object that only the optimizer's list of hooks holds."""

import torch
from torch import nn

import holdwater

torch.manual_seed(12)


class DecaySwitch:
    """Turns weight decay on for the last steps of each period, and off again."""

    def __init__(self, decay, period, steps):
        self.decay, self.period, self.steps = decay, period, steps
        self.calls = 0

    def __call__(self, optimizer, args, kwargs):
        self.calls += 1
        on = self.calls % self.period >= self.period - self.steps
        for group in optimizer.param_groups:
            group["weight_decay"] = self.decay if on else 0.0


model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
optimizer.register_step_post_hook(DecaySwitch(decay=2.0, period=9, steps=4))
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    x = torch.randn(16, 6)
    loss = nn.functional.mse_loss(model(x), x.max(1, keepdim=True).values)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", optimizer.param_groups[0]["weight_decay"], loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
