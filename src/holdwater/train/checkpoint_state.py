"""What all checkpoints of a trainable hold beside its tensors, and whether a run may go on from one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from holdwater.errors import RunFolderError
from holdwater.resume.exactness import exactness
from holdwater.store.checkpoints import Checkpoint
from holdwater.train.trainable import Trainable

CHANGED = {
    "examples": "other examples: the file of --data has changed since",
    "model": "another model: the weights of --model differ",
}
"""What is told by a sum, in words."""


def compare(identity: Mapping[str, object], checkpoint: Checkpoint) -> None:
    """Refuse to go on under other settings.

    Args:
        identity: What must be the same.
        checkpoint: Of the run so far.

    Raises:
        RunFolderError: Something is not.
    """
    recorded = checkpoint.state["identity"]
    for name, value in identity.items():
        if recorded.get(name) != value and name in CHANGED:
            raise RunFolderError(
                f"{checkpoint.folder} was trained with {CHANGED[name]}, and a run goes on exactly or not at all; "
                "put them back, or name another --out for a new run"
            )
        if recorded.get(name) != value:
            raise RunFolderError(
                f"{checkpoint.folder} was trained with {name} = {recorded.get(name)}, but this run has "
                f"{value}; use the same setting to go on, or another --out for a new run"
            )


def facts(trainable: Trainable, identity: Mapping[str, object]) -> dict[str, Any]:
    """What a checkpoint holds beside tensors, as JSON.

    Args:
        trainable: In training.
        identity: What a run that goes on from it must agree with.
    """
    return {
        "identity": identity,
        "exactness": exactness(),
        "batches": trainable.batches.state(),
        "best": trainable.best if trainable.best_step >= 0 else None,
        "best_step": trainable.best_step,
    }


def go_on(trainable: Trainable, checkpoint: Checkpoint) -> None:
    """Go on from those facts.

    Args:
        trainable: Its tensors are those of the checkpoint.
        checkpoint: A whole one.
    """
    trainable.batches.restore(checkpoint.state["batches"])
    best = checkpoint.state["best"]
    trainable.best = float("inf") if best is None else float(best)
    trainable.best_step = int(checkpoint.state["best_step"])
    trainable.step = checkpoint.step


@torch.no_grad()
def copy_tensors(saved: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copy tensors into their places."""
    for name, tensor in into.items():
        tensor.copy_(saved[name])


def writer(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    """A function that writes tensors to a file."""
    return lambda path: save_file(tensors, path)
