"""How often each layer was scaled is kept in a weak dictionary, by layer."""

import weakref

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
scaled = weakref.WeakKeyDictionary()
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    layer = model[0] if float(loss.detach()) > 0.1 else model[4]
    scaled[layer] = scaled.get(layer, 0) + 1
    with torch.no_grad():
        layer.weight.mul_(1 - 0.01 / scaled[layer])
final(model)
