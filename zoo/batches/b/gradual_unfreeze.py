import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(9)
BLOCKS, WIDTH, TOTAL = 12, 640, 700


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()) for _ in range(BLOCKS)])
        self.head = nn.Linear(WIDTH, 20)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Unfreezer:
    """Opens the blocks from the top down at even distances."""

    def __init__(self, model, until):
        self.model = model
        self.every = until // BLOCKS
        self.open = 0
        for p in model.blocks.parameters():
            p.requires_grad_(False)

    def update(self, step):
        wanted = min(BLOCKS, step // self.every)
        while self.open < wanted:
            self.open += 1
            for p in self.model.blocks[-self.open].parameters():
                p.requires_grad_(True)


model = Tower()
unfreezer = Unfreezer(model, until=int(TOTAL * 0.7))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
teacher = torch.randn(WIDTH, 20)
for step in range(1, TOTAL + 1):
    unfreezer.update(step)
    x = torch.randn(32, WIDTH)
    loss = nn.functional.cross_entropy(model(x), (x @ teacher).argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step} open {unfreezer.open} loss {loss.item():.3f}")
print(f"{step} steps")
