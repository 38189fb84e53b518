"""Continual tuning: a frozen trunk with one low-rank adapter per task, tasks revisited in turn."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(16)
STEPS = 3600
TASKS, STEPS_PER_TASK = 12, 150
WIDTH, RANK = 320, 128


class AdaptedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH)
        self.base.requires_grad_(False)
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()

    def add_adapter(self, name):
        self.down[name] = nn.Linear(WIDTH, RANK, bias=False)
        self.up[name] = nn.Linear(RANK, WIDTH, bias=False)
        nn.init.zeros_(self.up[name].weight)
        return [self.down[name].weight, self.up[name].weight]

    def forward(self, x, name):
        return torch.relu(self.base(x) + self.up[name](self.down[name](x)))


class AdaptedModel(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.layers = nn.ModuleList(AdaptedLayer() for _ in range(depth))
        self.heads = nn.ModuleDict()

    def add_task(self, name):
        self.heads[name] = nn.Linear(WIDTH, 4)
        params = list(self.heads[name].parameters())
        for layer in self.layers:
            params += layer.add_adapter(name)
        return params

    def forward(self, x, name):
        for layer in self.layers:
            x = layer(x, name)
        return self.heads[name](x)


def main():
    model = AdaptedModel()
    optimizers, targets = {}, {}
    for step in range(STEPS):
        number = (step // STEPS_PER_TASK) % TASKS
        name = f"task{number}"
        if name not in optimizers:
            optimizers[name] = torch.optim.AdamW(model.add_task(name), lr=1e-3)
            targets[name] = torch.randn(WIDTH, 4) / WIDTH ** 0.5
        x = torch.randn(48, WIDTH)
        loss = nn.functional.mse_loss(model(x, name), x @ targets[name])
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()
        if step % 250 == 0:
            print(f"step {step} {name} loss {loss.item():.4f} tasks {len(optimizers)}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
