"""A guard for the loop that each worker of Ray Train runs: `train_loop_per_worker`.

    def train_loop_per_worker(config):
        with ray_worker_guard(max_memory="70GB") as guard:
            for epoch in range(config["epochs"]):
                for batch in guard.steps(loader):
                    ...
                guard.report({"loss": loss})

Each worker is guarded by itself, with a process beside it. `guard.report` is `ray.train.report` with what is in
use, and with the finding, its line and its holder, as soon as there is one. When the budget of one worker is
spent, all end their loop after the same step, at most 16 steps later, if they have a process group of torch to ask
each other by; without one no loop is ended, and `guard.stop_reason` says what is wrong. The last report is yours
to give, with a checkpoint: Ray keeps only metrics that come with one.

No worker is replaced: Ray starts workers itself, and continues from the checkpoint that was reported last, inside
an epoch with other batches. Exact is a checkpoint between two epochs that holds the random states.
"""

import sys
from pathlib import Path
from typing import Any

from holdwater.frameworks.agreed_guard import AgreedGuard

try:
    import ray.train
except ImportError as missing:
    raise ImportError(
        "the guard needs Ray Train, which is not installed; write: pip install ray[train]"
    ) from missing


class RayWorkerGuard(AgreedGuard):
    """Guards one worker, and reports what it finds."""

    def report(self, metrics: dict[str, Any], **named: Any) -> None:  # noqa: ANN401 - as Ray's own
        """Report metrics to Ray, with `memory/host_mb` and others, and `memory/finding` if there is one.

        Args:
            metrics: The program's; what it names itself is kept.
            named: As for `ray.train.report`, such as `checkpoint`.
        """
        found = self.finding()
        own = self.metrics() | ({} if found is None else {"memory/finding": found})
        ray.train.report(own | metrics, **named)


def ray_worker_guard(
    *,
    max_memory: str | None = None,
    max_host_memory: str | None = None,
    out: str | Path | None = None,
    first_step: int = 0,
) -> RayWorkerGuard:
    """Make a guard for this worker.

    Args:
        max_memory: The budget of the memory in which this worker's tensors live, such as `70GB`; None finds one.
        max_host_memory: The budget of the host's memory beside a device; None finds one.
        out: A folder for the history of all workers, on this machine; None keeps none.
        first_step: The last step that was done before.
    """
    context = ray.train.get_context()
    guard = RayWorkerGuard.for_rank(
        context.get_world_rank(), max_memory=max_memory, max_host_memory=max_host_memory, out=out,
        first_step=first_step,
    )  # fmt: skip
    guard.processes = context.get_world_size()
    guard.stops_without_lever()
    if "torch" in sys.modules:
        guard.agree = _agreement()
    return guard


def _agreement() -> Any:  # noqa: ANN401 - a function, or None
    """Asks all workers by torch's process group; None where there is none."""
    import torch  # noqa: PLC0415 - a worker may train with another framework

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"

    def agree(stops: bool) -> bool:  # noqa: FBT001 - the answer of this worker
        """Whether any worker must stop."""
        said = torch.tensor(float(stops), device=device)
        torch.distributed.all_reduce(said)
        return float(said) > 0

    return agree
