"""Distillation from a copy of the student, made anew every 9 steps; only the first copy was registered."""

import copy

import torch
from torch import nn

import holdwater

torch.manual_seed(5)
inputs = torch.randn(64, 6)
targets = torch.stack([inputs[:, 0] * inputs[:, 1], inputs[:, 2].abs()], 1)
student = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 2))
teacher = copy.deepcopy(student).requires_grad_(False)
optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
holdwater.resumable("student", student)
holdwater.resumable("teacher", teacher)
holdwater.resumable("optimizer", optimizer)

for step in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (16,))
    answer = student(inputs[batch])
    with torch.no_grad():
        taught = teacher(inputs[batch])
    loss = nn.functional.mse_loss(answer, targets[batch]) + 0.5 * nn.functional.mse_loss(answer, taught)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 9 == 8:
        teacher = copy.deepcopy(student).requires_grad_(False)
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in student.parameters()))
print("teacher", *(p.double().sum().item().hex() for p in teacher.parameters()))
