"""MLP training with a probe that measures how sparse the tensors saved for backward are."""
import torch
import torch.nn as nn
from torch.autograd.graph import saved_tensors_hooks

torch.set_num_threads(1)
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, dim=128, depth=4, classes=10):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class SparsityProbe:
    """Counts zeros in what autograd keeps; gives back the tensor untouched."""

    def __init__(self):
        self.zeros = 0
        self.total = 0

    def pack(self, t):
        self.zeros += int((t == 0).sum())
        self.total += t.numel()
        return (t, t.shape)

    def unpack(self, packed):
        return packed[0]

    def measure(self, model, x):
        self.zeros = self.total = 0
        with saved_tensors_hooks(self.pack, self.unpack):
            model(x)
        return self.zeros / max(1, self.total)


model = Net()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
probe = SparsityProbe()
probe_x = torch.randn(320, 128)
teacher = torch.randn(128, 10)
for step in range(1, 6001):
    x = torch.randn(384, 128)
    y = (x @ teacher).argmax(1)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        sparsity = probe.measure(model, probe_x)
    if step % 500 == 0:
        print(f"step {step} loss {loss.item():.3f} saved-tensor sparsity {sparsity:.2f}", flush=True)
