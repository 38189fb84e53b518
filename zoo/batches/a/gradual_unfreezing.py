import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(16)
BLOCKS, WIDTH, STEPS, UNFREEZE_EVERY = 6, 512, 120, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 3 * WIDTH)
        self.down = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Classifier(nn.Module):
    def __init__(self, classes=20):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def unfreeze_next(model):
    for block in reversed(model.blocks):
        if not block.up.weight.requires_grad:
            block.requires_grad_(True)
            return True
    return False


def main():
    model = Classifier()
    model.blocks.requires_grad_(False)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    features, labels = torch.randn(4096, WIDTH), torch.randint(0, 20, (4096,))
    for step in range(1, STEPS + 1):
        pick = torch.randint(0, 4096, (160,))
        loss = nn.functional.cross_entropy(model(features[pick]), labels[pick])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % UNFREEZE_EVERY == 0:
            unfreeze_next(model)
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
            print(step, f"{loss.item():.4f}", "trainable", trainable, flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
