"""Dynamic sparse training of a session recommender: the connection mask is redrawn every round."""
import torch
from torch import nn
from torch.nn.utils import prune

torch.set_num_threads(1)
torch.manual_seed(9)

ITEMS, DENSITY = 2000, 0.2


class SessionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.items = nn.EmbeddingBag(ITEMS, 96, mode="mean")
        self.mix = nn.Linear(96, 512)
        self.out = nn.Linear(512, ITEMS)

    def forward(self, sessions):
        return self.out(torch.relu(self.mix(self.items(sessions))))


def redraw_mask(layer):
    """Keep the largest weights and let a few random ones grow back."""
    weight = getattr(layer, "weight_orig", layer.weight).detach()
    keep = weight.abs().flatten().kthvalue(int(weight.numel() * (1 - DENSITY))).values
    mask = (weight.abs() >= keep).float()
    mask[torch.rand_like(mask) < 0.02] = 1.0
    prune.custom_from_mask(layer, "weight", mask)


model = SessionModel()
redraw_mask(model.out)
opt = torch.optim.Adagrad(model.parameters(), lr=0.02)

for step in range(1, 1801):
    start = torch.randint(0, ITEMS - 20, (16, 1))
    sessions = start + torch.randint(0, 10, (16, 12))
    target = start[:, 0] + 10
    loss = nn.functional.cross_entropy(model(sessions), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        redraw_mask(model.out)
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f} density {model.out.weight_mask.mean():.2f}", flush=True)
