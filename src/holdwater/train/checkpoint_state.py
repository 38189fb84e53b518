"""What the checkpoints of all trainables have in common: facts other than tensors, and how a run resumes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from holdwater.errors import CheckpointError, RunFolderError
from holdwater.random_states import restore_random_states
from holdwater.resume.exactness import exactness, restore_exactness
from holdwater.store.checkpoints import Checkpoint
from holdwater.train.settings import LATER_SETTINGS
from holdwater.train.trainable import Trainable

MODEL, OPTIMIZER, RANDOM = "model.safetensors", "optimizer.safetensors", "random.safetensors"
"""Files of a checkpoint."""
CHANGED = {
    "examples": "other examples: the file of --data has changed since",
    "model": "another model: the weights of --model differ",
}
"""What the identity holds as a checksum, in words."""
BRANCHES = frozenset({"learning_rate", "warmup_steps"})
"""Settings that may differ where a new run begins from a checkpoint of another; so may the number of steps."""


def resume(
    trainable: Trainable,
    checkpoint: Checkpoint,
    identity: Mapping[str, object],
    load_tensors: Callable[[Checkpoint], None],
    *,
    branch: bool,
) -> list[str]:
    """Resume from a checkpoint, in place: tensors stay where they are, so memory is that of the run.

    Args:
        trainable: Gets the state.
        checkpoint: A whole one.
        identity: What the checkpoint must agree with.
        load_tensors: Copies weights and optimizer state out of the checkpoint.
        branch: Whether a new run begins from this checkpoint of another one.

    Returns:
        Remarks for people, where the machine differs from the one that wrote it.

    Raises:
        RunFolderError: The checkpoint belongs to a run with other settings.
        CheckpointError: Its files do not hold what they should.
    """
    fixed = {name: value for name, value in identity.items() if not (branch and name in BRANCHES)}
    compare(fixed, checkpoint)
    remarks = restore_exactness(checkpoint.state["exactness"])
    try:
        load_tensors(checkpoint)
        restore_random_states(load_file(checkpoint.folder / RANDOM))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint {checkpoint.folder} cannot be loaded: {error}") from error
    _restore_facts(trainable, checkpoint)
    return remarks


def compare(identity: Mapping[str, object], checkpoint: Checkpoint) -> None:
    """Refuse to resume under other settings.

    Args:
        identity: The settings that must be the same.
        checkpoint: The run's.

    Raises:
        RunFolderError: A setting differs.
    """
    recorded = LATER_SETTINGS | checkpoint.state["identity"]
    for name, value in (LATER_SETTINGS | dict(identity)).items():
        if recorded.get(name) != value and name in CHANGED:
            raise RunFolderError(
                f"{checkpoint.folder} was trained with {CHANGED[name]}, and a run must resume exactly; "
                "put them back, or name another --out for a new run"
            )
        if recorded.get(name) != value:
            raise RunFolderError(
                f"{checkpoint.folder} was trained with {name} = {recorded.get(name)}, but this run has "
                f"{value}; use the same setting to go on, or another --out for a new run{_branch_hint(name)}"
            )


def _branch_hint(name: str) -> str:
    """How a run may go on with another value of a setting, where it may."""
    return " (from this checkpoint with --resume CHECKPOINT)" if name in BRANCHES else ""


def facts(trainable: Trainable, identity: Mapping[str, object]) -> dict[str, Any]:
    """What a checkpoint holds other than tensors, as JSON.

    Args:
        trainable: In training.
        identity: What a run that resumes from it must agree with.
    """
    return {
        "identity": identity,
        "exactness": exactness(),
        "batches": trainable.batches.state(),
        "best": trainable.best if trainable.best_step >= 0 else None,
        "best_step": trainable.best_step,
    }


def _restore_facts(trainable: Trainable, checkpoint: Checkpoint) -> None:
    """Resume from the facts of a checkpoint, once its tensors are loaded."""
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
