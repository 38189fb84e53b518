"""What a plain loop over `mlx.nn` can ask for, beside `guard.steps`, `holdwater.steps` and `holdwater.resumable`.

    size = micro_batch(32)
    for step in holdwater.steps(3000):
        for begin in range(0, 32, size):        # add up the gradients of batch[begin : begin + size]
            ...                                 # then update once: the effective batch stays 32

Metal aborts a process when memory runs out, so the step cannot be repeated in it, as one of PyTorch is. Under
`holdwater run --supervise` the next process continues from the newest checkpoint with half the micro-batch.
"""

from holdwater.policy.micro_batch import after_out_of_memory
from holdwater.process.restart_context import RestartContext


def micro_batch(largest: int, *, factor: float = 0.5) -> int:
    """How many samples to propagate at once: fewer, if processes of this run died for want of memory.

    Args:
        largest: As many as are wanted, if memory is enough.
        factor: By what it shrinks with each death.

    Returns:
        `largest` where no supervisor has started this process; at least 1.
    """
    restart = RestartContext.taken()
    return after_out_of_memory(largest, 0 if restart is None else restart.out_of_memory_restarts, factor)
