"""The micro-batch of a process whose predecessors ran out of memory: smaller, at the same effective batch."""


def after_out_of_memory(micro_batch: int, deaths: int, factor: float = 0.5) -> int:
    """How many samples are propagated at once.

    Args:
        micro_batch: As configured.
        deaths: How many processes of the run were killed or aborted for want of memory.
        factor: By what it shrinks with each.

    Returns:
        At least 1; the loop adds up the gradients of as many micro-batches as make the effective batch.
    """
    return max(int(micro_batch * factor**deaths), 1)
