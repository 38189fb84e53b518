"""Weight decay is switched on and off by an object that only the optimizer's list of hooks holds."""

import torch
from torch import nn

import holdwater

torch.manual_seed(12)


class DecaySwitch:
    """Turns weight decay on when the weights have grown, for a number of steps, and off again."""

    def __init__(self, model, decay, steps):
        self.model, self.decay, self.steps = model, decay, steps
        self.left = 0
        self.reference = self.norm()

    def norm(self):
        return sum(p.detach().norm().item() for p in self.model.parameters())

    def __call__(self, optimizer, args, kwargs):
        if self.left:
            self.left -= 1
            if not self.left:
                self.reference = self.norm()
        elif self.norm() > 1.03 * self.reference:
            self.left = self.steps
        for group in optimizer.param_groups:
            group["weight_decay"] = self.decay if self.left else 0.0


model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
optimizer.register_step_post_hook(DecaySwitch(model, decay=2.0, steps=4))
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    x = torch.randn(16, 6)
    loss = nn.functional.mse_loss(model(x), x.max(1, keepdim=True).values)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
print("decay", optimizer.param_groups[0]["weight_decay"])
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
