"""The learning rate over a run: a linear rise, then half a cosine down to a tenth.

Source: Loshchilov and Hutter (2017), "SGDR: Stochastic Gradient Descent with Warm Restarts".
"""

import math

LAST_SHARE = 0.1
"""The last learning rate, as a share of the peak."""


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        step: From 1.
        peak: The highest rate.
        warmup: Steps in which it rises; cut to the length of the run.
        steps: Length of the run.
    """
    warmup = min(warmup, steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * (LAST_SHARE + (1 - LAST_SHARE) * cosine)
