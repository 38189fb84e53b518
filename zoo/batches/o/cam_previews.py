"""Classifier on synthetic tiles; class activation maps are rendered at every validation."""
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(2)

STEPS = 2000
VAL_EVERY = 40


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, stride=2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.fc(x.mean((2, 3)))


class GradCAM:
    def __init__(self, model, layer):
        self.model = model
        self.activation = None
        self.gradient = None
        layer.register_forward_hook(self.save_activation)

    def save_activation(self, module, inputs, output):
        if self.model.training:
            return
        if self.activation is None:
            self.activation = output.detach().clone()
            output.register_hook(self.save_gradient)

    def save_gradient(self, grad):
        self.gradient = grad.detach()

    def __call__(self, images, target):
        self.model.zero_grad()
        scores = self.model(images)
        scores.gather(1, target[:, None]).sum().backward()
        weights = self.gradient.mean((2, 3), keepdim=True)
        cam = F.relu((weights * self.activation).sum(1))
        return cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-6)


def make_batch(n, size=64):
    y = torch.randint(0, 5, (n,))
    x = torch.randn(n, 3, size, size) * 0.5
    for i, c in enumerate(y.tolist()):
        x[i, :, c * 10:c * 10 + 12, 20:44] += 1.0
    return x, y


model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

for step in range(1, STEPS + 1):
    model.train()
    x, y = make_batch(20)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    if step % VAL_EVERY == 0:
        model.eval()
        x, y = make_batch(16)
        cam = GradCAM(model, model.conv2)
        maps = cam(x, y)
        focus = maps[:, :, 10:22].mean() / maps.mean()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} cam focus {focus.item():.2f}", flush=True)
