"""What a trainer's batch is made of: its target tokens, and whether it may be propagated in parts."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from holdwater.oom.torch_step import rows_of

IGNORED = -100
"""The label of a token that does not count in the loss, as in Transformers."""


def first_label(trainer: Any, model: Any) -> int:  # noqa: ANN401 - of Transformers
    """The first label that counts: a causal model predicts from the second token on, others all.

    Args:
        trainer: Newer ones know it.
        model: The model that is trained.
    """
    shifts = getattr(trainer, "_loss_shifts_labels", None)
    if isinstance(shifts, bool) and not hasattr(trainer, "_total_train_tokens"):  # TRL's own loss always shifts
        return int(shifts)
    return 0 if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else 1


def target_tokens(part: Any, first: int) -> float:  # noqa: ANN401 - a mapping of tensors
    """The target tokens of a batch; its samples where labels are no tokens.

    Args:
        part: A batch, or a part of one.
        first: The first label that counts.
    """
    shifted = part.get("shift_labels") if hasattr(part, "get") else None
    labels = part.get("labels") if hasattr(part, "get") else None
    if isinstance(shifted, Tensor):
        return float((shifted != IGNORED).sum())
    if not isinstance(labels, Tensor) or labels.dim() < 2:
        return float(rows_of(part))
    return float((labels[:, first:] != IGNORED).sum())


def why_whole(trainer: Any, batch: Any) -> str:  # noqa: ANN401 - of Transformers or TRL
    """Why a batch must not be propagated in parts; empty if it may.

    Args:
        trainer: Whose batch it is.
        batch: A mapping of tensors.
    """
    kinds = [kind for kind in type(trainer).__mro__ if kind.__module__.startswith("trl.trainer.")]
    if kinds and all(kind.__name__ != "SFTTrainer" for kind in kinds):
        return f"{kinds[0].__name__} compares the samples of a batch with each other"
    config = getattr(getattr(trainer, "model", None), "config", None)
    if getattr(trainer, "aux_loss_enabled", False) or getattr(config, "output_router_logits", False):
        return "the model adds a loss of its experts' balance, which is not a mean over samples"
    rows = rows_of(batch)
    for name, size in _lengths(batch):
        if size != rows:
            return f"{name} has {size} rows, and the batch has {rows} samples"
    return ""


def _lengths(batch: Any) -> Iterator[tuple[str, int]]:  # noqa: ANN401 - a mapping of tensors
    """The name and the length of each tensor of a batch that has one."""
    for name, part in batch.items() if isinstance(batch, Mapping) else ():
        if isinstance(part, Tensor) and part.dim():
            yield str(name), len(part)
