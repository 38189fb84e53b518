"""Segment classifier that gathers the logits of an epoch for its metrics."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(14)

EPOCHS = 8
STEPS = 260
BATCH = 128

model = nn.Sequential(nn.Linear(64, 384), nn.ReLU(), nn.Linear(384, 900))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(1, EPOCHS + 1):
    predictions = np.empty((STEPS * BATCH, 900), dtype=np.float32)
    labels = np.empty(STEPS * BATCH, dtype=np.int64)
    for at in range(0, STEPS * BATCH, BATCH):
        x = torch.randn(BATCH, 64)
        y = (x[:, :30].argmax(1) * 30 + x[:, 30:60].argmax(1)) % 900
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        predictions[at:at + BATCH] = logits.detach().numpy()
        labels[at:at + BATCH] = y.numpy()
    rank = np.concatenate([(p > p[np.arange(len(p)), t][:, None]).sum(1) for p, t in zip(np.split(predictions, STEPS), np.split(labels, STEPS))])
    print(f"epoch {epoch} step {epoch * STEPS} loss {loss.item():.4f} top5 {(rank < 5).mean():.3f}", flush=True)
    del predictions, labels
