"""Fine-tuning from the head down: one more block is unfrozen every so many steps."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(19)

STEPS = 1500
EVERY = 120
WIDTH = 640


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, WIDTH)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


backbone = nn.ModuleList(Block() for _ in range(8))
head = nn.Linear(WIDTH, 10)
for p in backbone.parameters():
    p.requires_grad_(False)
opt = torch.optim.AdamW(head.parameters(), lr=3e-4)
centres = torch.randn(10, WIDTH)
frozen = list(backbone)

for step in range(STEPS):
    if frozen and step and step % EVERY == 0:
        block = frozen.pop()
        for p in block.parameters():
            p.requires_grad_(True)
        opt.add_param_group({"params": list(block.parameters()), "lr": 1e-4})
        print(f"step {step} unfroze a block, {len(frozen)} left", flush=True)
    y = torch.randint(0, 10, (16,))
    x = centres[y] * 0.3 + torch.randn(16, WIDTH)
    for block in backbone:
        x = block(x)
    loss = F.cross_entropy(head(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
