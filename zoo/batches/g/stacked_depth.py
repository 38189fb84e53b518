"""Progressive stacking: the network starts shallow and gets another block until its full depth."""
import copy

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(41)
STEPS = 1800
WIDTH, FIRST_BLOCKS, FULL_DEPTH, STEPS_PER_BLOCK = 240, 2, 10, 110


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


class StackedNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(FIRST_BLOCKS))
        self.head = nn.Linear(WIDTH, 1)

    def grow(self):
        """A copy of the last block on top of it; returns its parameters."""
        block = copy.deepcopy(self.blocks[-1])
        self.blocks.append(block)
        return list(block.parameters())

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def main():
    model = StackedNetwork()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    weights = torch.randn(WIDTH, 1) / WIDTH ** 0.5
    for step in range(STEPS):
        if step and step % STEPS_PER_BLOCK == 0 and len(model.blocks) < FULL_DEPTH:
            optimizer.add_param_group({"params": model.grow()})
        x = torch.randn(16, WIDTH)
        loss = nn.functional.mse_loss(model(x), torch.tanh(x @ weights))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 150 == 0:
            print(f"step {step} loss {loss.item():.4f} blocks {len(model.blocks)}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
