"""Fine-tuning from the top: one more layer is thawed every few hundred steps."""
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, DEPTH = 640, 8


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(DEPTH))
        self.head = nn.Linear(DIM, 12)

    def forward(self, x):
        for layer in self.layers:
            x = x + 0.3 * torch.relu(layer(x))
        return self.head(x)


model = Stack()
for layer in model.layers:
    layer.requires_grad_(False)
opt = torch.optim.AdamW(model.parameters(), lr=2e-4)
proj = torch.randn(DIM, 12)
thawed = 0
for step in range(1, 1801):
    if step % 110 == 0 and thawed < DEPTH:
        thawed += 1
        model.layers[DEPTH - thawed].requires_grad_(True)
    x = torch.randn(24, DIM)
    loss = nn.functional.cross_entropy(model(x), (x @ proj).argmax(1))
    opt.zero_grad(set_to_none=False)
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} loss {loss.item():.3f} thawed {thawed}/{DEPTH}", flush=True)
