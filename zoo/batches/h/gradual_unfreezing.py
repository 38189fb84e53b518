"""ULMFiT-like gradual unfreezing: a layer more every so often, Adam's state comes with each."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(28)

STEPS, UNFREEZE_EVERY, WIDTH, DEPTH = 1400, 110, 640, 6


def main():
    blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
    head = nn.Linear(WIDTH, 3)
    blocks.requires_grad_(False)
    optimizer = torch.optim.Adam([*blocks.parameters(), *head.parameters()], lr=1e-4)
    frozen = DEPTH
    for step in range(1, STEPS + 1):
        if frozen and step % UNFREEZE_EVERY == 0:
            frozen -= 1
            blocks[frozen].requires_grad_(True)
        y = torch.randint(0, 3, (8,))
        h = torch.randn(8, WIDTH) + y[:, None] * 0.1
        for block in blocks:
            h = h + torch.relu(block(h))
        loss = nn.functional.cross_entropy(head(h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} frozen {frozen} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
