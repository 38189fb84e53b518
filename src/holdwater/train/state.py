"""The state of a training run: everything that a checkpoint holds, and the way back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
)
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.flat import FlatWeights
from holdwater.train.model import GPT, PRESETS
from holdwater.train.settings import TrainSettings
from holdwater.train.text import Batches, Tokens


@dataclass(slots=True)
class TrainState:
    """A model in training."""

    model: GPT
    weights: FlatWeights
    optimizer: torch.optim.Optimizer
    batches: Batches
    identity: dict[str, object]
    """What a checkpoint must agree with."""
    step: int = 0
    """Optimizer steps done."""
    best: float = float("inf")
    """The lowest validation loss so far, in nats."""
    best_step: int = -1
    """The step of that evaluation; -1 before the first."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor of the state, by file and name."""
        optimizer = {
            f"{index}.{name}": value
            for index, values in enumerate(self.optimizer.state.values())
            for name, value in values.items()
        }
        weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        return {"model": weights, "optimizer": optimizer, "random": random_states()}

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
        files = {
            f"{name}.safetensors": _writer(tensors) for name, tensors in self.tensors().items() if tensors
        }
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
            self._load_weights(load_file(checkpoint.folder / "model.safetensors"))
            path = checkpoint.folder / "optimizer.safetensors"
            if path.exists():  # before the first step there is no optimizer state
                self._load_optimizer(load_file(path))
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
    def _load_weights(self, saved: dict[str, Tensor]) -> None:
        """Copy weights into their places."""
        for name, weight in self.model.state_dict().items():
            weight.copy_(saved[name])

    @torch.no_grad()
    def _load_optimizer(self, saved: dict[str, Tensor]) -> None:
        """Copy moments and step counts into the optimizer."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for name, value in saved.items():
            index, _, field_name = name.partition(".")
            values = self.optimizer.state[parameters[int(index)]]
            if field_name in values:
                values[field_name].copy_(value)
            else:
                values[field_name] = value.to(parameters[int(index)].device) if value.dim() else value


def new_state(settings: TrainSettings, tokens: Tokens) -> TrainState:
    """Make the state of a run that has not begun."""
    torch.manual_seed(settings.seed)
    model = GPT(PRESETS[settings.preset], vocabulary=tokens.vocabulary, length=settings.train_seq_length)
    model.to(settings.device)
    weights = FlatWeights.of(model)
    groups = [
        {"params": [weights.decayed], "weight_decay": settings.weight_decay},
        {"params": [weights.undecayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)
    batches = Batches(
        tokens.train, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed
    )
    identity = settings.identity() | {"text": tokens.fingerprint}
    return TrainState(model, weights, optimizer, batches, identity)


def _writer(tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 - a function of a path
    """A function that writes tensors to a file."""
    return lambda path: save_file(tensors, path)
