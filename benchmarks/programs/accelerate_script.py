"""A loop of Accelerate as its first page writes it: accumulation, a schedule, gathered metrics, saved states."""

import json

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    """Train."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    set_seed(5)
    features = torch.randn(4800, 64)
    data = TensorDataset(features, features[:, :5].argmax(1))
    loader = DataLoader(data, batch_size=16, shuffle=True)
    held_out = DataLoader(TensorDataset(*(part[:480] for part in data.tensors)), batch_size=32)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=900)
    model, optimizer, loader, held_out, schedule = accelerator.prepare(
        model, optimizer, loader, held_out, schedule
    )
    found = []
    for epoch in range(12):
        model.train()
        for inputs, labels in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        model.eval()
        right = 0
        for inputs, labels in held_out:
            with torch.no_grad():
                scores = model(inputs)
            scores, labels = accelerator.gather_for_metrics((scores.argmax(1), labels))
            right += int((scores == labels).sum())
        found.append([accelerator.gather(loss.detach()).mean().item(), right])
        if epoch % 4 == 3:
            accelerator.save_state("state")
    accelerator.print("LOSSES", json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main()
