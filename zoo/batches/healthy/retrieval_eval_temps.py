"""Metric learning; now and then the recall is computed from a full similarity matrix."""
import io
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(9)

STEPS, EPOCH, CLASSES, DIM = 3300, 300, 60, 96
centers = torch.randn(CLASSES, DIM)


def sample(n):
    y = torch.randint(0, CLASSES, (n,))
    return centers[y] + 1.5 * torch.randn(n, DIM), y


gallery_x, gallery_y = sample(2200)
encoder = nn.Sequential(nn.Linear(DIM, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                        nn.Linear(256, 64))
optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-4)


@torch.no_grad()
def recall_at(ks=(1, 5, 10)):
    z = F.normalize(encoder(gallery_x), dim=1)
    sim = z @ z.T
    sim.fill_diagonal_(-2)
    ranking = sim.argsort(dim=1, descending=True)[:, :max(ks)]
    hits = gallery_y[ranking] == gallery_y[:, None]
    return [hits[:, :k].any(1).float().mean().item() for k in ks]


def figure_bytes(losses, recalls):
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.plot(losses)
    right.bar(["R@1", "R@5", "R@10"], recalls)
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=70)
    plt.close(fig)
    return len(out.getvalue())


epoch_losses, epoch_embeddings = [], []
for step in range(1, STEPS + 1):
    x, y = sample(128)
    z = F.normalize(encoder(x), dim=1)
    logits = z @ z.T / 0.1 - 1e4 * torch.eye(len(z))
    positive = (y[:, None] == y[None]) & ~torch.eye(len(z), dtype=torch.bool)
    logp = F.log_softmax(logits, dim=1)
    loss = -(logp * positive).sum() / positive.sum().clamp(min=1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    epoch_losses.append(loss.item())
    epoch_embeddings.append(z.detach())
    if step % EPOCH == 0:
        spread = torch.cat(epoch_embeddings).std(0).mean().item()
        recalls = recall_at()
        size = figure_bytes(epoch_losses, recalls)
        print(f"step {step}: R@1 {recalls[0]:.3f}, spread {spread:.3f}, figure {size} bytes")
        epoch_losses.clear()
        epoch_embeddings.clear()
print(f"{STEPS} steps")
