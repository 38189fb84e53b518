import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(12)


class CompactReLU(torch.autograd.Function):
    """ReLU that keeps a byte mask for its backward in place of the activation."""

    masks = {}
    ticket = 0

    @staticmethod
    def forward(ctx, x):
        mask = x > 0
        CompactReLU.ticket += 1
        ctx.ticket = CompactReLU.ticket
        CompactReLU.masks[ctx.ticket] = mask
        return x * mask

    @staticmethod
    def backward(ctx, grad):
        return grad * CompactReLU.masks.pop(ctx.ticket)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(CompactReLU.apply(self.up(self.norm(x))))


class ResidualMLP(nn.Module):
    def __init__(self, inputs=20, width=64, depth=3):
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x))).squeeze(1)


def target(x):
    return torch.sin(2 * x[:, 0]) * x[:, 1] + x[:, 2].abs()


@torch.no_grad()
def validate(model, x, y):
    model.eval()
    error = (model(x) - y).pow(2).mean().item()
    model.train()
    return error


model = ResidualMLP()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
x_val = torch.randn(1200, 20)
y_val = target(x_val)
for step in range(1, 2801):
    x = torch.randn(96, 20)
    loss = (model(x) - target(x)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step > 400 and step % 40 == 0:
        error = validate(model, x_val, y_val)
        if step % 400 == 0:
            print(f"step {step} train {loss.item():.4f} val {error:.4f}")
print(f"trained {step} steps")
