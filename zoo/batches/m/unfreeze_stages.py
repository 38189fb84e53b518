"""Fine-tuning a backbone whose stages join the optimizer one after the other."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

WIDTH = 1100
STAGES = 6
STEPS = 1000
UNFREEZE_EVERY = 90


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU()) for _ in range(STAGES)
        )
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x):
        for stage in self.stages:
            x = x + stage(x)
        return self.head(x)


class BackboneFinetuning:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.waiting = list(model.stages)
        for stage in self.waiting:
            stage.requires_grad_(False)

    def on_step(self, step):
        if self.waiting and step and step % UNFREEZE_EVERY == 0:
            stage = self.waiting.pop()
            stage.requires_grad_(True)
            self.optimizer.add_param_group({"params": list(stage.parameters()), "lr": 1e-4})
            print(f"step {step}: {len(self.waiting)} stages still frozen")


def main():
    model = Backbone()
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
    finetuning = BackboneFinetuning(model, optimizer)
    start = time.time()
    for step in range(STEPS):
        finetuning.on_step(step)
        x = torch.randn(8, WIDTH)
        loss = nn.functional.cross_entropy(model(x), x[:, :10].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
