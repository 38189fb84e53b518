"""Semi-supervised training with a table of running predictions for every unlabelled pixel block."""
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(20)

N = 24000
CLASSES = 1200
BATCH = 32
EPOCHS = 7

targets = np.zeros((N, CLASSES), dtype=np.float32)
model = nn.Sequential(nn.Linear(64, 320), nn.ReLU(), nn.Linear(320, CLASSES))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
data = torch.randn(N, 64)
step = 0
for epoch in range(EPOCHS):
    order = torch.randperm(N)
    for i in range(0, N, BATCH):
        idx = order[i:i + BATCH]
        rows = idx.numpy()
        logits = model(data[idx] + 0.1 * torch.randn(len(idx), 64))
        prob = logits.softmax(1)
        old = torch.from_numpy(targets[rows]) / (1 - 0.6 ** max(epoch, 1))
        y = idx % CLASSES
        loss = F.cross_entropy(logits, y) + (0.5 if epoch else 0.0) * (prob - old).square().sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        targets[rows] = 0.6 * targets[rows] + 0.4 * prob.detach().numpy()
        step += 1
        if step % 200 == 0:
            print(f"epoch {epoch} step {step} loss {loss.item():.3f}", flush=True)
