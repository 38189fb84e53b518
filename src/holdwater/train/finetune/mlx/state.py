"""The adapters of an MLX model in training: everything that a checkpoint holds, and how it is restored.

A checkpoint folder is an adapter of `mlx_lm`: it can be loaded there as it is.
"""

import hashlib
import logging
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.generate import generate_step

from holdwater.errors import CheckpointError, ModelError
from holdwater.oom.recovering_step import StepFunctions
from holdwater.random_states import random_states, seed_everything
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.checkpoint_state import OPTIMIZER, RANDOM, facts, resume, writer
from holdwater.train.finetune.data.examples import Corpus
from holdwater.train.finetune.data.held_out import (
    Chosen,
    check_examples,
    data_file,
    fingerprint,
    say_added_term,
    split,
)
from holdwater.train.finetune.data.packing import Examples
from holdwater.train.finetune.data.selective import SelectiveLoss, told_rows
from holdwater.train.finetune.mlx.adapters import CONFIG, WEIGHTS, adapter_config
from holdwater.train.finetune.mlx.batches import ExampleRows, RowBatches
from holdwater.train.finetune.mlx.loading import (
    LoadedMlx,
    add_adapters,
    check_length,
    checkpoint_gradients,
    load_mlx,
    read_weights,
)
from holdwater.train.finetune.mlx.loss import split_head
from holdwater.train.finetune.mlx.step import MlxRandomState, MlxStep
from holdwater.train.finetune.mlx.trees import flat
from holdwater.train.finetune.state import shown
from holdwater.train.finetune.vision.generic_loading import learns_from_pictures
from holdwater.train.finetune.vision.loading import is_vision_language
from holdwater.train.settings import TrainSettings, TuneSettings

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("holdwater")


@dataclass(slots=True)
class MlxTuneState:
    """Adapters of an MLX model in training."""

    settings: TrainSettings
    tuning: TuneSettings
    loaded: LoadedMlx
    config: str
    """The text of `adapter_config.json`."""
    taken: MlxStep
    """Takes the steps."""
    batches: RowBatches
    held_out: Examples
    identity: dict[str, object]
    """What a checkpoint must agree with."""
    _: KW_ONLY
    corpus: Corpus
    """All examples, learned and held out."""
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
    pictures: int | None = None

    @property
    def micro_batch(self) -> int:
        """Most rows that are propagated at once."""
        return self.settings.batch_size

    @property
    def epochs(self) -> float:
        """How often the examples were gone through."""
        return self.batches.epochs

    @property
    def parameters(self) -> int:
        """Weights of the adapters."""
        return sum(array.size for array in flat(self.loaded.model.trainable_parameters()).values())

    @property
    def remarks(self) -> str:
        """What was wasted on padding so far, and what was cut or left out."""
        length, answers = self.settings.train_seq_length, self.tuning.learn == "answers"
        return told_rows(self.batches.state(), length, answers_only=answers)

    @property
    def proof(self) -> dict[str, Any]:
        """Nothing: MLX does not count what its allocator is asked for."""
        return {}

    def step_functions(self) -> StepFunctions[ExampleRows]:
        """What a step is made of. It is evaluated whole or not at all, so no weight is ever half updated."""
        taken = self.taken
        return StepFunctions(
            propagate=taken.propagate,
            rows=lambda batch: len(batch.tokens),
            cut=lambda batch, begin, end: batch.part(begin, end),
            weigh=lambda batch: batch.weight,
            clear=taken.clear,
            update=lambda: taken.update(self.rate),
            weights=tuple,
            loss=taken.loss,
            inexact="its dropout depends on it" if self.tuning.lora_dropout else "",
            kept=[MlxRandomState()],
        )

    def evaluate(self) -> float:
        """The mean loss on the held-out examples in nats a token, always on the same rows."""
        settings = self.settings
        batches = RowBatches(
            self.held_out, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed
        )
        total = count = 0.0
        for _ in range(settings.eval_batches):
            batch = batches.draw()
            total += self.taken.evaluate(batch)
            count += batch.weight
        return total / max(count, 1.0)

    def sample(self, count: int) -> str:
        """Let the model continue the beginning of a held-out example with the likeliest tokens: nothing is drawn.

        Args:
            count: Tokens to add.

        Returns:
            The end of the beginning, an arrow, and what the model makes of it.
        """
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        begin = self.held_out[0].beginning[: self.settings.train_seq_length - 1]
        added: list[int] = []
        model.eval()
        try:
            for token, _ in generate_step(mx.array(begin), model, max_tokens=count):
                if token == tokenizer.eos_token_id:
                    break
                added.append(int(token))
        finally:
            model.train()
        return shown(tokenizer, begin, added)

    def park(self, folder: CheckpointFolder) -> bool:
        """There is no weight server for MLX."""
        del folder
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
        files: dict[str, Callable[[Path], object]] = {
            WEIGHTS: lambda path: mx.save_safetensors(str(path), flat(self.loaded.model.trainable_parameters())),
            CONFIG: lambda path: path.write_text(self.config, encoding="utf-8"),
            OPTIMIZER: lambda path: mx.save_safetensors(str(path), self._optimizer_arrays()),
            RANDOM: writer(random_states()),
        }
        written = facts(self, self.identity) | {"mlx": _exactness()}
        return folder.write(self.step, files, written, best=best)

    def first_non_finite(self) -> str:
        """The name of the first trained or optimizer array that holds NaN or infinity; empty if none does."""
        arrays = flat(self.loaded.model.trainable_parameters()) | self._optimizer_arrays()
        finite: Any = mx.stack([mx.isfinite(array).all() for array in arrays.values()]).tolist()
        return next((name for name, good in zip(arrays, finite, strict=True) if not good), "")

    def check_data(self) -> None:
        """Read the examples once.

        Raises:
            DataError: One is wrong.
        """
        check_examples(self.corpus)

    def begin_anew(self) -> None:
        """Nothing to do: no other process holds weights of this run."""

    def load(self, checkpoint: Checkpoint, *, branch: bool = False) -> list[str]:
        """Resume from a checkpoint.

        Args:
            checkpoint: A whole one.
            branch: Whether a new run begins from this checkpoint of another one.

        Returns:
            Remarks for people, where the machine differs from the one that wrote it.

        Raises:
            RunFolderError: The checkpoint belongs to a run with other settings.
            CheckpointError: Its files do not hold what they should.
        """
        remarks = resume(self, checkpoint, self.identity, self._load_trained, branch=branch)
        then, now = checkpoint.state["mlx"], _exactness()
        return remarks + [
            f"{name} was {then[name]} and is {now[name]}: the rest of the run may differ in its last bits"
            for name in now
            if then.get(name, now[name]) != now[name]
        ]

    def _optimizer_arrays(self) -> dict[str, mx.array]:
        """The state of the optimizer by name."""
        return flat(self.taken.optimizer.state)

    def _load_trained(self, checkpoint: Checkpoint) -> None:
        """Read adapters and optimizer out of a checkpoint.

        Raises:
            CheckpointError: It holds other arrays than this run has.
        """
        for file, into, put in (
            (WEIGHTS, flat(self.loaded.model.trainable_parameters()), self.taken.put_weights),
            (OPTIMIZER, self._optimizer_arrays(), self.taken.put_optimizer),
        ):
            saved: Any = mx.load(str(checkpoint.folder / file))
            if {name: (one.shape, one.dtype) for name, one in saved.items()} != {
                name: (one.shape, one.dtype) for name, one in into.items()
            }:
                raise CheckpointError(f"{checkpoint.folder / file} holds other arrays than this run has")
            mx.eval(saved)
            put(saved)


def _exactness() -> dict[str, str]:
    """What the exact bits of a result depend on."""
    return {"MLX": version("mlx"), "MLX's device": str(mx.default_device())}


def new_mlx_tuning(settings: TrainSettings, tuning: TuneSettings) -> MlxTuneState:
    """Load a model, give it adapters, and open its examples.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.

    Raises:
        DataError: The examples cannot be read.
        ModelError: The model cannot be loaded.
        ConfigError: The adapters cannot be made so.
    """
    path = data_file(settings.data)
    if is_vision_language(tuning.model) or learns_from_pictures(tuning.model, settings.data):
        raise ModelError(
            f"--model {tuning.model} would learn from pictures, but --backend mlx learns from text only; "
            "leave --backend out"
        )
    seed_everything(settings.seed)
    mx.random.seed(settings.seed)
    loaded = load_mlx(tuning.model)
    check_length(loaded.config, settings.train_seq_length)
    read_weights(loaded, tuning.quantize)
    layers, parameters = add_adapters(loaded, tuning)
    if tuning.gradient_checkpointing:
        checkpoint_gradients(loaded.model)
    corpus = Corpus(
        path, loaded.tokenizer, answers_only=tuning.learn == "answers", selective=SelectiveLoss.of(tuning)
    )
    learned, held_out = (Chosen(corpus, numbers) for numbers in split(corpus, settings))
    RowBatches(held_out, size=1, length=settings.train_seq_length, seed=settings.seed).draw()  # can be evaluated
    if tuning.distrust == "added":
        say_added_term(corpus, tuning.distrust_alpha)
    batches = RowBatches(
        learned, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed,
        weighs=tuning.distrust == "weighted", selective_from=tuning.selective_loss_from,
    )  # fmt: skip
    return MlxTuneState(
        settings, tuning, loaded, adapter_config(tuning.model, layers, parameters), _step_of(loaded, settings),
        batches, held_out, settings.identity() | {"examples": fingerprint(path), "model": _name_of(loaded)},
        corpus=corpus,
    )  # fmt: skip


def _step_of(loaded: LoadedMlx, settings: TrainSettings) -> MlxStep:
    """The steps of a model with adapters."""
    head = split_head(loaded.model)
    if head is None:
        log.warning("the logits of this model are made by its own code, those of a whole micro-batch at once")
    return MlxStep(
        loaded.model,
        head,
        weight_decay=settings.weight_decay,
        largest_norm=settings.gradient_clip,
        skips=settings.non_finite == "skip",
    )


def _name_of(loaded: LoadedMlx) -> str:
    """Identifies a model: its kind, and the files of its weights, whose content is not read whole."""
    files = [fingerprint(file) for file in sorted(loaded.folder.glob("*.safetensors"))]
    return f"{loaded.config['model_type']} {hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"
