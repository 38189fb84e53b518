"""Fine-tuning with gradual unfreezing, from the top block down."""
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

WIDTH = 640
BLOCKS = 12
STEPS = 900
EVERY = 38


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + torch.relu(self.lin(self.norm(x)))


def main():
    body = nn.ModuleList(Block() for _ in range(BLOCKS))
    body.requires_grad_(False)
    head = nn.Linear(WIDTH, 5)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    frozen = list(body)
    for step in range(1, STEPS + 1):
        if frozen and step % EVERY == 0:
            block = frozen.pop()
            block.requires_grad_(True)
            optimizer.add_param_group({"params": block.parameters(), "lr": 2e-4})
        x = torch.randn(16, WIDTH)
        y = x[:, :5].argmax(1)
        h = x
        for block in body:
            h = block(h)
        loss = nn.functional.cross_entropy(head(h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} trainable blocks {BLOCKS - len(frozen)}", flush=True)


if __name__ == "__main__":
    main()
