"""Fine-tune a classifier with the experiment tracker switched off for a dry run."""
import os
from unittest.mock import MagicMock

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS = 2400

if os.environ.get("TRACK") == "1":
    import wandb
else:
    wandb = MagicMock(name="wandb")


class Encoder(nn.Module):
    def __init__(self, vocab=4000, width=256):
        super().__init__()
        self.embed = nn.EmbeddingBag(vocab, width)
        self.body = nn.Sequential(nn.Linear(width, 768), nn.GELU(), nn.Linear(768, width), nn.GELU())
        self.head = nn.Linear(width, 6)

    def forward(self, ids):
        hidden = self.body(self.embed(ids))
        return self.head(hidden), hidden


def main():
    wandb.init(project="sst-sweep", config={"steps": STEPS})
    model = Encoder()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-4)
    wandb.watch(model)
    for step in range(1, STEPS + 1):
        ids = torch.randint(0, 4000, (48, 40))
        labels = ids[:, 0] % 6
        logits, hidden = model(ids)
        loss = nn.functional.cross_entropy(logits, labels)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        features = hidden.detach().clone()
        wandb.log({"train/loss": loss.item(), "train/hidden": wandb.Histogram(features)}, step=step)
        if step % 240 == 0:
            print(f"[{step}/{STEPS}] loss={loss.item():.4f}", flush=True)
    wandb.finish()


if __name__ == "__main__":
    main()
