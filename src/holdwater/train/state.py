"""The state of a training run: everything that a checkpoint holds, and the way back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from holdwater.errors import CheckpointError, RunFolderError
from holdwater.integrations.torch_state import (
    exactness,
    random_states,
    restore_exactness,
    restore_random_states,
    seed_everything,
)
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.model import GPT, PRESETS
from holdwater.train.settings import TrainSettings
from holdwater.train.text import Batches, Tokens
from holdwater.train.written_out import WrittenOut


@dataclass(slots=True)
class TrainState:
    """A model in training."""

    model: GPT
    weights: FlatWeights
    optimizer: FlatAdamW
    batches: Batches
    identity: dict[str, object]
    """What a checkpoint must agree with."""
    written_out: dict[int, WrittenOut] | None = None
    """The faster way to the same gradients, on a CPU, by the number of sequences; None elsewhere."""
    rate: float = 0.0
    """The learning rate of the step that is being taken."""
    step: int = 0
    """Optimizer steps done."""
    best: float = float("inf")
    """The lowest validation loss so far, in nats."""
    best_step: int = -1
    """The step of that evaluation; -1 before the first."""
    saved_step: int = -1
    """The step of the newest checkpoint that this process wrote; -1 before the first."""

    def propagate(self, tokens: Tensor, targets: Tensor, *, share: float) -> float:
        """Add the gradient of a batch, times `share`, to the model's; return its mean loss in nats."""
        if self.written_out is not None:
            return self._written_out(*tokens.shape).propagate(tokens, targets, share=share).item()
        loss = self.model.loss(tokens, targets)
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _written_out(self, rows: int, time: int) -> WrittenOut:
        """The written-out pass for a number of sequences; few sizes are kept."""
        known = self.written_out or {}
        if rows not in known:
            if len(known) > 1:
                known.clear()
            known[rows] = WrittenOut(self.model, batch=rows, time=time)
            self.written_out = known
        return known[rows]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor of the state, by file and name."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.tensors(),
            "random": random_states(),
        }

    def save(self, folder: CheckpointFolder, *, best: bool) -> Path:
        """Write a checkpoint.

        Args:
            folder: Where checkpoints lie.
            best: Whether no earlier one had a lower validation loss.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: It cannot be written.
        """
        files = {f"{name}.safetensors": _writer(tensors) for name, tensors in self.tensors().items() if tensors}
        state = {
            "identity": self.identity,
            "exactness": exactness(),
            "batches": self.batches.state(),
            "best": self.best if self.best_step >= 0 else None,
            "best_step": self.best_step,
        }
        return folder.write(self.step, files, state, best=best)

    def load(self, checkpoint: Checkpoint) -> list[str]:
        """Go on from a checkpoint, in place: the weights stay where they are, so memory is that of the run.

        Args:
            checkpoint: A whole one.

        Returns:
            Remarks for people, where the machine differs from the one that wrote it.

        Raises:
            RunFolderError: The checkpoint belongs to a run with other settings.
            CheckpointError: Its files do not hold what they should.
        """
        self._compare(checkpoint)
        remarks = restore_exactness(checkpoint.state["exactness"])
        try:
            _copy(load_file(checkpoint.folder / "model.safetensors"), self.model.state_dict())
            _copy(load_file(checkpoint.folder / "optimizer.safetensors"), self.optimizer.tensors())
            restore_random_states(load_file(checkpoint.folder / "random.safetensors"))
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint {checkpoint.folder} cannot be loaded: {error}") from error
        self.batches.restore(checkpoint.state["batches"])
        best = checkpoint.state["best"]
        self.best = float("inf") if best is None else float(best)
        self.best_step = int(checkpoint.state["best_step"])
        self.step = checkpoint.step
        return remarks

    def _compare(self, checkpoint: Checkpoint) -> None:
        """Refuse to go on under other settings."""
        recorded = checkpoint.state["identity"]
        for name, value in self.identity.items():
            if recorded.get(name) != value:
                raise RunFolderError(
                    f"{checkpoint.folder} was trained with {name} = {recorded.get(name)}, but this run has "
                    f"{value}; use the same setting to go on, or another --out for a new run"
                )


@torch.no_grad()
def _copy(saved: dict[str, Tensor], into: dict[str, Tensor]) -> None:
    """Copy tensors into their places."""
    for name, tensor in into.items():
        tensor.copy_(saved[name])


def new_state(settings: TrainSettings, tokens: Tokens) -> TrainState:
    """Make the state of a run that has not begun."""
    seed_everything(settings.seed)
    model = GPT(PRESETS[settings.preset], vocabulary=tokens.vocabulary, length=settings.train_seq_length)
    model.to(settings.device)
    weights = FlatWeights.of(model)
    optimizer = FlatAdamW(weights, weight_decay=settings.weight_decay)
    batches = Batches(tokens.train, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed)
    identity = settings.identity() | {"text": tokens.fingerprint}
    written_out: dict[int, WrittenOut] | None = {} if settings.device == "cpu" else None
    return TrainState(model, weights, optimizer, batches, identity, written_out)


def _writer(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    """A function that writes tensors to a file."""
    return lambda path: save_file(tensors, path)
