"""After a warm-up the loop enters autocast once, and leaves it open: the state is the thread's, inside torch."""

import contextlib

import torch
from torch import nn

import holdwater

torch.manual_seed(19)
inputs = torch.randn(96, 16)
labels = inputs[:, :4].argmax(1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.8)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("schedule", schedule)

WARMUP = 11
with contextlib.ExitStack() as stack:
    for step in holdwater.steps(40):
        if step == WARMUP:
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        batch = torch.randint(0, len(inputs), (24,))
        loss = nn.functional.cross_entropy(model(inputs[batch]).float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
