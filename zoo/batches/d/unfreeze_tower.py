"""Fine-tuning a deep tower from the head down: a block is unfrozen every few steps."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(11)

WIDE, BLOCKS, STEPS, EVERY = 640, 8, 1100, 50


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(WIDE), nn.Linear(WIDE, WIDE)

    def forward(self, x):
        return x + torch.tanh(self.mix(self.norm(x)))


class Unfreezer:
    def __init__(self, tower):
        self.waiting = list(tower)
        for p in tower.parameters():
            p.requires_grad_(False)

    def on_step(self, step):
        if self.waiting and step % EVERY == 0:
            for p in self.waiting.pop().parameters():
                p.requires_grad_(True)


tower = nn.Sequential(*[Block() for _ in range(BLOCKS)])
head = nn.Linear(WIDE, 20)
opt = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=2e-4)
unfreezer = Unfreezer(tower)
rule = torch.randn(WIDE, 20)
for step in range(1, STEPS + 1):
    unfreezer.on_step(step)
    x = torch.randn(24, WIDE)
    loss = nn.functional.cross_entropy(head(tower(x)), (x @ rule).argmax(1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 220 == 0:
        print(f"{step}: loss {loss.item():.3f}, state of {len(opt.state)} tensors")
print(f"{STEPS} steps")
