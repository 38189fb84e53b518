"""Continual learning on a stream of tasks with a typed model output per task.

Each task has its own label prior, which its output type carries as a default,
so that downstream code can correct the logits without knowing the task.
"""
from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn
from transformers.utils import ModelOutput

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, CLASSES, BATCH = 128, 24, 192
TASKS, STEPS_PER_TASK = 60, 92


def make_output(task, confusion):
    @dataclass
    class TaskOutput(ModelOutput):
        loss: Optional[torch.Tensor] = None
        logits: Optional[torch.Tensor] = None

        def corrected(self):
            return self.logits - confusion[self.logits.argmax(1) * 31 % len(confusion), : CLASSES]

    TaskOutput.__name__ = f"Task{task}Output"
    return TaskOutput


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(DIM, 320), nn.GELU(), nn.Linear(320, 320), nn.GELU())
        self.head = nn.Linear(320, CLASSES)

    def forward(self, x, labels, output_type):
        logits = self.head(self.body(x))
        loss = nn.functional.cross_entropy(logits, labels)
        return output_type(loss=loss, logits=logits)


def main():
    learner = Learner()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9)
    step = 0
    for task in range(TASKS):
        centers = torch.randn(CLASSES, DIM)
        confusion = torch.rand(20_000, CLASSES).mul_(0.1)
        output_type = make_output(task, confusion)
        hits = 0
        for _ in range(STEPS_PER_TASK):
            labels = torch.randint(0, CLASSES, (BATCH,))
            out = learner(centers[labels] + torch.randn(BATCH, DIM), labels, output_type)
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
            step += 1
            hits += (out.corrected().argmax(1) == labels).sum().item()
        if task % 5 == 4:
            accuracy = hits / (STEPS_PER_TASK * BATCH)
            print(f"step {step} task {task + 1} accuracy {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
