"""Mixture of experts routed by domain; the domains join one after the other."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(10)

DOMAINS, DIM, HIDDEN, BATCH = 8, 192, 1536, 24
STEPS, NEW_DOMAIN_EVERY = 2300, 180


class DomainMoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(DIM, DIM)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(DIM, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM))
            for _ in range(DOMAINS))
        self.head = nn.Linear(DIM, 12)

    def forward(self, x, domain):
        h = F.gelu(self.stem(x))
        out = torch.zeros_like(h)
        for d in domain.unique().tolist():
            rows = (domain == d).nonzero().squeeze(1)
            out = out.index_add(0, rows, self.experts[d](h[rows]))
        return self.head(h + out)


def sample(active):
    """Half of the batch from the newest domain (or a random one), half from another."""
    newest = active - 1 if active < DOMAINS else int(torch.randint(0, active, ()))
    other = int(torch.randint(0, active, ()))
    domain = torch.tensor([newest] * (BATCH // 2) + [other] * (BATCH // 2))
    y = torch.randint(0, 12, (BATCH,))
    x = prototypes[domain, y] + 0.8 * torch.randn(BATCH, DIM)
    return x, domain, y


prototypes = torch.randn(DOMAINS, 12, DIM)
model = DomainMoE()
# Adam only makes moments for experts that have received a gradient
optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
running = 0.0
for step in range(STEPS):
    active = min(DOMAINS, 1 + step // NEW_DOMAIN_EVERY)
    x, domain, y = sample(active)
    loss = F.cross_entropy(model(x, domain), y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    scheduler.step()
    running = 0.98 * running + 0.02 * loss.item()
    if (step + 1) % 300 == 0:
        print(f"step {step + 1}: {active} domains, loss {running:.3f}")
print(f"{STEPS} steps")
