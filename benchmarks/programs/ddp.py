"""PyTorch's DDP tutorial on two ranks with gloo: a sampler per epoch, a checkpoint by rank 0, an averaged loss.

torchrun --standalone --nproc-per-node 2 ddp.py
"""

import json
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from stopwatch import Stopwatch


def main():
    """Train on this rank."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    features = torch.randn(8000, 128)
    data = TensorDataset(features, features[:, :10].argmax(dim=1))
    sampler = DistributedSampler(data, shuffle=True, seed=1)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    model = DDP(nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    watch, losses = Stopwatch(), []
    for epoch in range(60):
        sampler.set_epoch(epoch)
        total = torch.zeros(1)
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            watch.step()
        dist.all_reduce(total)
        losses.append(total.item())
        if rank == 0 and epoch % 10 == 9:
            torch.save({"model": model.module.state_dict(), "epoch": epoch}, "checkpoint.pt")
        dist.barrier()
    watch.write()
    if rank == 0:
        print("LOSSES", json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
