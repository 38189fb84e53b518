"""Fine-tuning that thaws one block after another from the top."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(11)

STEPS = 1500
THAW_EVERY = 100
WIDTH = 640

blocks = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(8)])
stem, head = nn.Linear(48, WIDTH), nn.Linear(WIDTH, 12)
for p in [*stem.parameters(), *blocks.parameters()]:
    p.requires_grad_(False)
optimizer = torch.optim.AdamW([*blocks.parameters(), *head.parameters()], lr=2e-4)
thawed = 0

for step in range(1, STEPS + 1):
    if step % THAW_EVERY == 0 and thawed < len(blocks):
        thawed += 1
        blocks[-thawed].requires_grad_(True)
    x = torch.randn(32, 48)
    h = stem(x)
    for block in blocks:
        h = h + block(h)
    loss = F.cross_entropy(head(h), x[:, :12].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 150 == 0:
        print(f"step {step} thawed {thawed} loss {loss.item():.4f}", flush=True)
