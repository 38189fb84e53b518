"""Noise that becomes weaker."""

import torch

strength = 0.5


def added(x):
    """Inputs with noise."""
    return x + strength * torch.randn_like(x)


def after_step():
    """Weaken it."""
    global strength
    strength *= 0.95
