"""The state of a training run: everything that a checkpoint holds, and how it is restored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from holdwater.oom.recovering_step import StepFunctions
from holdwater.random_states import random_states, seed_everything
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.checkpoint_state import MODEL, OPTIMIZER, RANDOM, copy_tensors, facts, resume, writer
from holdwater.train.flat import FlatAdamW, FlatWeights, first_non_finite
from holdwater.train.pretrain.fused_step import FusedStep
from holdwater.train.pretrain.model import GPT, PRESETS
from holdwater.train.pretrain.text import Batches, Tokens
from holdwater.train.settings import TrainSettings

PROMPT = "def "
"""How generated text begins, where the vocabulary has these characters."""


@dataclass(slots=True)
class TrainState:
    """A model in training."""

    settings: TrainSettings
    tokens: Tokens
    model: GPT
    weights: FlatWeights
    optimizer: FlatAdamW
    batches: Batches
    identity: dict[str, object]
    """What a checkpoint must agree with."""
    fused_steps: dict[int, FusedStep] | None = None
    """Fused steps on a CPU, by the number of sequences; None on other devices."""
    loss: float = 0.0
    """The sum of the micro-batches' mean losses in the step that is being taken."""
    rate: float = 0.0
    """The learning rate of the step that is being taken."""
    step: int = 0
    """Optimizer steps done."""
    best: float = float("inf")
    """The lowest validation loss so far, in nats."""
    best_step: int = -1
    """The step of that evaluation; -1 before the first."""
    saved_step: int = -1
    pictures: int | None = None
    """The step of the newest checkpoint that this process wrote; -1 before the first."""

    @property
    def remarks(self) -> str:
        """Nothing: a text has no padding."""
        return ""

    @property
    def proof(self) -> dict[str, Any]:
        """Nothing: these steps are not captured."""
        return {}

    def step_functions(self) -> StepFunctions[tuple[Tensor, Tensor]]:
        """What a step is made of. The model draws nothing at random and has no batch statistics."""
        return StepFunctions(
            propagate=lambda batch, share: self.propagate(*batch, share=share),
            rows=lambda batch: len(batch[0]),
            cut=lambda batch, begin, end: (batch[0][begin:end], batch[1][begin:end]),
            weigh=lambda batch: float(batch[0].numel()),
            clear=self.clear,
            update=self.update,
            weights=lambda: (self.weights.decayed, self.weights.undecayed),
        )

    @torch.no_grad()
    def evaluate(self) -> float:
        """The mean loss on the held-out text in nats a token, always on the same batches."""
        settings = self.settings
        batches = Batches(
            self.tokens.validation,
            size=settings.batch_size,
            length=settings.train_seq_length,
            seed=settings.seed,
        )
        losses = [self.model.loss(*batches.draw(settings.device)).item() for _ in range(settings.eval_batches)]
        return sum(losses) / len(losses)

    def sample(self, count: int) -> str:
        """Let the model continue a prompt; its random numbers are not the run's.

        Args:
            count: Tokens to add.
        """
        known = self.tokens.characters
        begin = list(PROMPT.encode()) if known is None else [known.find(c) for c in PROMPT if c in known] or [0]
        generator = torch.Generator().manual_seed(self.settings.seed)
        tokens = torch.tensor([begin], device=self.settings.device)
        return self.tokens.decode(self.model.generate(tokens, count, generator)[0].tolist())

    @property
    def micro_batch(self) -> int:
        """Sequences that are propagated at once, at most."""
        return self.settings.batch_size

    @property
    def epochs(self) -> float:
        """How often as many tokens were seen as the text has."""
        return self.step * self.settings.gradient_accumulation / self.batches.steps_in_epoch

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def clear(self) -> None:
        """Begin a step: set all gradients to zero."""
        self.loss = 0.0
        self.weights.clear_gradients()

    def update(self) -> None:
        """Change the weights."""
        self.optimizer.step(learning_rate=self.rate, largest_norm=self.settings.gradient_clip, loss=self.loss)

    def propagate(self, tokens: Tensor, targets: Tensor, *, share: float) -> float:
        """Add the gradient of a batch, times `share`, to the model's; return its mean loss in nats."""
        if self.fused_steps is not None:
            mean = self._fused_step(*tokens.shape).propagate(tokens, targets, share=share)
        else:
            mean = self.model.loss(tokens, targets)
            (mean * share).backward()  # type: ignore[no-untyped-call]
        loss = mean.item()
        self.loss += loss
        return loss

    def _fused_step(self, rows: int, time: int) -> FusedStep:
        """The fused step for a number of sequences; few sizes are kept."""
        known = self.fused_steps or {}
        if rows not in known:
            if len(known) > 1:
                known.clear()
            known[rows] = FusedStep(self.model, batch=rows, time=time)
            self.fused_steps = known
        return known[rows]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor of the state, by file and name."""
        return {
            MODEL: dict(self.model.state_dict()),
            OPTIMIZER: self.optimizer.tensors(),
            RANDOM: random_states(),
        }

    def park(self, folder: CheckpointFolder) -> bool:  # noqa: ARG002 - of a trainable
        """False: nobody keeps what is trained."""
        return False

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
        files = {name: writer(tensors) for name, tensors in self.tensors().items() if tensors}
        return folder.write(self.step, files, facts(self, self.identity), best=best)

    def first_non_finite(self) -> str:
        """The name of the first trained or optimizer tensor that holds NaN or infinity; empty if none does."""
        return first_non_finite(self.weights.tensors() | self.optimizer.tensors())

    def check_data(self) -> None:
        """Nothing to do: all of a text is read as the run begins."""

    def begin_anew(self) -> None:
        """Nothing to do: each process makes its own weights."""

    def load(self, checkpoint: Checkpoint, *, branch: bool = False) -> list[str]:
        """Resume from a checkpoint, in place.

        Args:
            checkpoint: A whole one.
            branch: Whether a new run begins from this checkpoint of another one.

        Returns:
            Remarks for people, where the machine differs from the one that wrote it.

        Raises:
            RunFolderError: The checkpoint belongs to a run with other settings.
            CheckpointError: Its files do not hold what they should.
        """
        return resume(self, checkpoint, self.identity, self._load_tensors, branch=branch)

    def _load_tensors(self, checkpoint: Checkpoint) -> None:
        """Copy weights and optimizer state out of a checkpoint."""
        copy_tensors(load_file(checkpoint.folder / MODEL), self.model.state_dict())
        copy_tensors(load_file(checkpoint.folder / OPTIMIZER), self.optimizer.tensors())


def new_state(settings: TrainSettings, tokens: Tokens) -> TrainState:
    """Make the state of a run that has not begun."""
    seed_everything(settings.seed)
    model = GPT(PRESETS[settings.preset], vocabulary=tokens.vocabulary, length=settings.train_seq_length)
    model.to(settings.device)
    weights = FlatWeights.of(model)
    optimizer = FlatAdamW(weights, weight_decay=settings.weight_decay, skips=settings.non_finite == "skip")
    batches = Batches(tokens.train, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed)
    identity = settings.identity() | {"text": tokens.fingerprint}
    fused_steps: dict[int, FusedStep] | None = {} if settings.device == "cpu" else None
    return TrainState(settings, tokens, model, weights, optimizer, batches, identity, fused_steps)
