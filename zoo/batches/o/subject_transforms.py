"""Medical volumes wrapped in subject objects that know their transforms."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(17)

STEPS = 6000


class Transform:
    def __init__(self, subject, name):
        self.subject = subject
        self.name = name

    def apply(self):
        if self.name == "noise":
            self.subject.data = self.subject.data + 0.1 * torch.randn_like(self.subject.data)
        else:
            self.subject.data = self.subject.data.flip(-1)


class Subject:
    def __init__(self, data):
        self.data = data
        self.history = [Transform(self, n) for n in ("noise", "flip")]

    def transformed(self):
        for t in self.history:
            t.apply()
        return self.data


net = nn.Sequential(nn.Conv3d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv3d(16, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 1))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for step in range(STEPS):
    subjects = [Subject(torch.randn(1, 24, 24, 24) * (0.5 + torch.rand(1))) for _ in range(4)]
    x = torch.stack([s.transformed() for s in subjects])
    loss = nn.functional.mse_loss(net(x)[:, 0], x.std((1, 2, 3, 4)))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.4f}", flush=True)
