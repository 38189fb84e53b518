"""Every learning-rate schedule of torch, each with an optimizer of its own."""

import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

import holdwater
from tiny import data, final, network, show, write


def chained(optimizer: torch.optim.Optimizer) -> schedules.ChainedScheduler:
    """Two at the same time."""
    return schedules.ChainedScheduler(
        [schedules.ConstantLR(optimizer, 0.5, 9), schedules.ExponentialLR(optimizer, 0.97)], optimizer
    )


def sequential(optimizer: torch.optim.Optimizer) -> schedules.SequentialLR:
    """One after the other."""
    parts = [schedules.LinearLR(optimizer, 0.1, 1.0, 10), schedules.CosineAnnealingLR(optimizer, 30)]
    return schedules.SequentialLR(optimizer, parts, [10])


KINDS = {
    "lambda": lambda one: schedules.LambdaLR(one, lambda step: 0.98**step),
    "multiplicative": lambda one: schedules.MultiplicativeLR(one, lambda step: 0.99),
    "step": lambda one: schedules.StepLR(one, 9, 0.7),
    "multistep": lambda one: schedules.MultiStepLR(one, [5, 5, 20, 33], 0.6),
    "constant": lambda one: schedules.ConstantLR(one, 0.3, 22),
    "linear": lambda one: schedules.LinearLR(one, 0.2, 1.0, 25),
    "exponential": lambda one: schedules.ExponentialLR(one, 0.97),
    "polynomial": lambda one: schedules.PolynomialLR(one, 50, 2.0),
    "cosine": lambda one: schedules.CosineAnnealingLR(one, 17),
    "restarts": lambda one: schedules.CosineAnnealingWarmRestarts(one, 7, 2),
    "cyclic": lambda one: schedules.CyclicLR(one, 1e-3, 2e-2, 6),
    "one cycle": lambda one: schedules.OneCycleLR(one, 2e-2, total_steps=61),
    "plateau": lambda one: schedules.ReduceLROnPlateau(one, patience=2),
    "chained": chained,
    "sequential": sequential,
}
inputs, targets = data()
models = {kind: network() for kind in KINDS}
optimizers = {kind: torch.optim.SGD(models[kind].parameters(), lr=1e-2, momentum=0.9) for kind in KINDS}
running = {kind: make(optimizers[kind]) for kind, make in KINDS.items()}
for kind in KINDS:
    holdwater.resumable(f"model {kind}", models[kind])
    holdwater.resumable(f"optimizer {kind}", optimizers[kind])
    holdwater.resumable(f"schedule {kind}", running[kind])
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    for kind, model in models.items():
        loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
        optimizers[kind].zero_grad()
        loss.backward()
        optimizers[kind].step()
        running[kind].step(*([float(loss)] if kind == "plateau" else []))
        show(loss)
final(*models.values())
write("rates", *(one.param_groups[0]["lr"].hex() for one in optimizers.values()))
