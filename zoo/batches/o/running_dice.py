"""Two-class segmentation; a smoothed soft Dice is shown in the progress line."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(10)

STEPS = 2200


class Block(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm = nn.GroupNorm(4, cout)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class Smoothed:
    def __init__(self, momentum=0.95):
        self.momentum = momentum
        self.value = None

    def update(self, x):
        if self.value is None:
            self.value = x
        else:
            self.value = self.momentum * self.value + (1 - self.momentum) * x

    def __str__(self):
        return f"{float(self.value):.3f}"


def soft_dice(logits, mask):
    prob = torch.sigmoid(logits)
    inter = (prob * mask).sum((1, 2))
    return (2 * inter / (prob.square().sum((1, 2)) + mask.sum((1, 2)) + 1)).mean()


net = nn.Sequential(Block(1, 16), Block(16, 16), nn.Conv2d(16, 1, 1))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
dice = Smoothed()

for step in range(STEPS):
    mask = torch.zeros(6, 48, 48)
    for i in range(6):
        y, x = torch.randint(0, 30, (2,)).tolist()
        mask[i, y:y + 16, x:x + 16] = 1
    image = mask[:, None] + 0.8 * torch.randn(6, 1, 48, 48)
    logits = net(image)[:, 0]
    loss = F.binary_cross_entropy_with_logits(logits, mask)
    opt.zero_grad()
    loss.backward()
    opt.step()
    dice.update(soft_dice(logits, mask))
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.4f} dice {dice}", flush=True)
