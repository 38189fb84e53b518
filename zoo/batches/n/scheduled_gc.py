"""Pretraining loop with Python's collector switched off and run by hand every so many steps."""
import gc

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, GC_EVERY, WIDTH = 2400, 150, 384


class MicroBatch:
    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets
        self.meta = {"owner": self}
        self.hidden = None


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, batch):
        batch.hidden = self.down(nn.functional.gelu(self.up(batch.inputs)))
        return batch.hidden


def main():
    model, head = Block(), nn.Linear(WIDTH, 32)
    opt = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-4)
    gc.collect()
    gc.disable()
    for step in range(1, STEPS + 1):
        x = torch.randn(128, WIDTH)
        batch = MicroBatch(x, x[:, :32].argmax(1))
        loss = nn.functional.cross_entropy(head(model(batch)), batch.targets)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        batch.hidden = batch.hidden.detach()
        if step % GC_EVERY == 0:
            gc.collect()
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
