"""ULMFiT-style fine-tuning: one more layer group is unfrozen every few steps."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(14)

STEPS, EVERY, LAYERS, DIM = 1500, 50, 14, 640

layers = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(LAYERS))
head = nn.Linear(DIM, 20)
for p in layers.parameters():
    p.requires_grad_(False)
opt = torch.optim.AdamW([*layers.parameters(), *head.parameters()], lr=3e-4)
centers = torch.randn(20, DIM)
for step in range(STEPS):
    group = LAYERS - 1 - step // EVERY
    if step % EVERY == 0 and group >= 0:
        for p in layers[group].parameters():
            p.requires_grad_(True)
    y = torch.randint(0, 20, (24,))
    h = centers[y] + 0.5 * torch.randn(24, DIM)
    for layer in layers:
        h = h + F.relu(layer(h)) * 0.1
    loss = F.cross_entropy(head(h), y)
    opt.zero_grad(set_to_none=False)
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} lowest group {max(group, 0)} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
