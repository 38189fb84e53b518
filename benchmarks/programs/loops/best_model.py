"""The best weights so far are kept in a dictionary, and restored at the end."""

import copy

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show, write

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
best = {"loss": float("inf"), "step": -1, "weights": copy.deepcopy(model.state_dict())}
for name, thing in (("model", model), ("optimizer", optimizer), ("best", best)):
    holdwater.resumable(name, thing)
for step in holdwater.steps(60):
    chosen = torch.randint(0, 64, (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    model.eval()
    with torch.no_grad():
        held_out = nn.functional.mse_loss(model(inputs[64:]), targets[64:]).item()
    model.train()
    if held_out < best["loss"]:
        best.update(loss=held_out, step=step, weights=copy.deepcopy(model.state_dict()))
model.load_state_dict(best["weights"])
write("best", str(best["step"]), best["loss"].hex())
final(model)
