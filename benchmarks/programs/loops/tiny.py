"""What the loops share: data, a small model, and lines that show every bit of a result."""

import sys

import torch
from torch import Tensor, nn

torch.set_num_threads(1)
torch.manual_seed(0)
ROWS = 96
"""Of the data."""


def data() -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(ROWS, 8, generator=generator)
    return inputs, inputs[:, :2].sum(1, keepdim=True).tanh()


def network(dropout: float = 0.1) -> nn.Sequential:
    """A network with a dropout and a normalisation."""
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))


def show(loss: Tensor | float) -> None:
    """Print a loss, to the bit."""
    write("loss", float(torch.as_tensor(loss).detach()).hex())


def final(*modules: nn.Module) -> None:
    """Print what was learned, to the bit."""
    parts = [part for module in modules for part in module.state_dict().values()]
    write("final", *(float(part.double().sum()).hex() for part in parts))


def write(*words: str) -> None:
    """Write a line at once: of one that `print` writes in parts, a process that is killed may leave the first."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()
