"""What was seen is replayed from a queue of tensors."""

from collections import deque

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
memory = deque(maxlen=20)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    memory.append((inputs[chosen] + 0.1 * torch.randn(8, 8), targets[chosen]))
    x, y = memory[int(torch.randint(0, len(memory), ()))]
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
