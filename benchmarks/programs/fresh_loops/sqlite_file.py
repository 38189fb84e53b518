"""Losses are kept in a database, which also chooses what is learned next."""

import sqlite3

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
db = sqlite3.connect("losses.db")
db.execute("create table if not exists losses (sample integer, loss real)")
db.executemany("insert into losses values (?, 1.0)", [(index,) for index in range(len(inputs))])
db.commit()
WORST = "select sample from losses group by sample order by avg(loss) desc, sample limit 8"
for _ in holdwater.steps(60):
    chosen = [sample for (sample,) in db.execute(WORST)]
    losses = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen], reduction="none").squeeze(1)
    loss = losses.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    db.executemany("insert into losses values (?, ?)", zip(chosen, losses.tolist(), strict=True))
    db.commit()
final(model)
