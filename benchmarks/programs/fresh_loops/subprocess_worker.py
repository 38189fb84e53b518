"""Another program draws the samples and is asked through its pipes."""

import json
import subprocess
import sys

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
PROGRAM = """
import json, random, sys
dice = random.Random(9)
for line in sys.stdin:
    print(json.dumps(dice.sample(range(96), int(line))), flush=True)
"""
worker = subprocess.Popen(
    [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
for _ in holdwater.steps(60):
    worker.stdin.write("8\n")
    worker.stdin.flush()
    chosen = json.loads(worker.stdout.readline())
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
worker.stdin.close()
worker.wait()
final(model)
