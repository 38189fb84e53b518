"""Recognise launchers that supervise processes themselves, such as `torchrun`; holdwater restarts nothing then."""

from collections.abc import Mapping

ELASTIC = ("TORCHELASTIC_RUN_ID",)
"""Set where another supervisor is at work: PyTorch's elastic agent restarts its workers itself."""
RANKS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""How many processes a launcher has started: one of them must not be replaced while the others wait for it."""


def another_supervises(environment: Mapping[str, str]) -> bool:
    """Whether another supervisor is at work already, such as that of `torchrun`.

    Args:
        environment: Of this process.
    """
    ranks = [environment[name] for name in RANKS if environment.get(name, "").isdigit()]
    return any(name in environment for name in ELASTIC) or any(int(count) > 1 for count in ranks)
