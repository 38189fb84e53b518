from collections import deque

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(48)


class ActivationWindow:
    """Forward hook that remembers the outputs of a layer over a window of steps."""

    def __init__(self, layer, length):
        self.outputs, self.length = deque(), length
        self.handle = layer.register_forward_hook(self.remember)

    def remember(self, module, inputs, output):
        if module.training:
            if len(self.outputs) < self.length:
                self.outputs.append(output.detach().clone())
            else:
                self.outputs.rotate(-1)
                self.outputs[-1].copy_(output.detach())

    def dead_share(self, last=50):
        recent = list(self.outputs)[-last:]
        return sum((o <= 0).all(dim=0).float().mean().item() for o in recent) / max(1, len(recent))

    def drift(self):
        if len(self.outputs) < 2:
            return 0.0
        return (self.outputs[-1].mean(0) - self.outputs[0].mean(0)).norm().item()


class DriftingTask:
    def __init__(self, inputs=40, outputs=5):
        self.weights = torch.randn(inputs, outputs)

    def batch(self, n=40):
        self.weights += 0.002 * torch.randn_like(self.weights)
        x = torch.randn(n, len(self.weights))
        return x, (x @ self.weights).argmax(1)


task = DriftingTask()
model = nn.Sequential(nn.Linear(40, 160), nn.ReLU(), nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 5))
window = ActivationWindow(model[3], length=5000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for step in range(1, 10001):
    x, y = task.batch()
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 500 == 0:
        model.eval()
        with torch.no_grad():
            x, y = task.batch(400)
            accuracy = (model(x).argmax(1) == y).float().mean().item()
        model.train()
        print(f"{step} accuracy {accuracy:.3f} dead {window.dead_share():.3f} drift {window.drift():.3f}")
window.handle.remove()
print(f"{step} steps")
