"""The adapters of a large model in training: everything that a checkpoint holds, and how it is restored.

A checkpoint folder is an adapter of PEFT: it can be loaded there as it is.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from holdwater.errors import CheckpointError
from holdwater.oom.recovering_step import StepFunctions
from holdwater.oom.torch_step import why_inexact
from holdwater.random_states import RandomStates, random_states, seed_everything
from holdwater.store.checkpoints import RESTING, Checkpoint, CheckpointFolder
from holdwater.train.checkpoint_state import MODEL, OPTIMIZER, RANDOM, copy_tensors, facts, resume, writer
from holdwater.train.finetune.data.examples import Corpus
from holdwater.train.finetune.data.held_out import (
    Checked,
    Chosen,
    check_examples,
    data_file,
    fingerprint,
    say_added_term,
    split,
)
from holdwater.train.finetune.data.packing import Examples, Packed, PackedBatches
from holdwater.train.finetune.data.selective import SelectiveLoss, told_rows
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.identity import mixed, name_of, own_tensors
from holdwater.train.finetune.model.loading import (
    Loaded,
    check_length,
    load_model,
    tokenizer_files,
)
from holdwater.train.finetune.model.lora import (
    CONFIG,
    WEIGHTS,
    LoraConfig,
    adapter_config,
    adapter_tensors,
    add_adapters,
    load_adapters,
)
from holdwater.train.finetune.planner.fused import Choice
from holdwater.train.finetune.planner.plan import check_plan, settle
from holdwater.train.finetune.step.allocator_calls import AllocatorCalls
from holdwater.train.finetune.step.backends import StepBackend, TextBackend, choose_backend
from holdwater.train.finetune.weight_server.client import WeightClient, WeightServerError, open_weight_client
from holdwater.train.flat import first_non_finite
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.train.trainable import Ahead

log = logging.getLogger("holdwater")

SHOWN = 200
"""Characters of a prompt that are shown, at most."""
SETTLED = 4
"""Steps of a process after which nothing new is taken from the device."""


@dataclass(slots=True)
class TuneState:
    """Adapters in training."""

    settings: TrainSettings
    tuning: TuneSettings
    loaded: Loaded
    lora: LoraConfig | None
    """What adapters the model has; None where all its weights are trained."""
    backend: StepBackend
    """Takes the steps."""
    examples: PackedBatches
    """Where batches come from."""
    batches: Ahead
    held_out: Examples
    identity: dict[str, object]
    """What a checkpoint must agree with."""
    _: KW_ONLY
    corpus: Checked
    """All examples, learned and held out."""
    weight_client: WeightClient
    """Where frozen weights lie, and what is trained while one process hands over to another."""
    micro_batch: int
    """Rows that are propagated at once, at most."""
    choice: Choice | None
    """How steps were planned; None where they were not."""
    calls: AllocatorCalls
    """Of steps whose memory never moves."""
    first_step: int = 0
    """Steps that were done when this process began."""
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
    def epochs(self) -> float:
        """How often the examples were gone through."""
        return self.examples.epochs_at(self.batches.state())

    @property
    def parameters(self) -> int:
        """Weights of the adapters."""
        return sum(weight.numel() for weight in self.loaded.model.parameters() if weight.requires_grad)

    @property
    def remarks(self) -> str:
        """What was wasted on padding so far, what was cut or left out, and how many steps asked for no memory."""
        length, answers = self.settings.train_seq_length, self.tuning.learn == "answers"
        said = told_rows(self.batches.state(), length, answers_only=answers)
        return f"{said}{self.calls}" if said else ""

    @property
    def proof(self) -> dict[str, Any]:
        """Steps of this process, and how many of them asked the allocator for nothing."""
        return self.calls.counts()

    def step_functions(self) -> StepFunctions[Packed]:
        """What a step is made of."""
        backend, weights = self.backend, self.backend.weights
        by_number = backend.seeds_dropout and self.lora is not None and self.lora.dropout > 0
        return StepFunctions(
            propagate=self.propagate,
            rows=lambda batch: len(batch.tokens),
            cut=lambda batch, begin, end: batch.part(begin, end),
            weigh=lambda batch: batch.weight,
            clear=self.clear,
            update=lambda: backend.update(self.rate),
            weights=lambda: (weights.decayed, weights.undecayed),
            loss=self.loss,
            inexact=why_inexact(self.loaded.model) or ("its dropout depends on it" if by_number else ""),
            kept=[RandomStates()],
        )

    def clear(self) -> None:
        """Begin a step: what is asked of the allocator from here on is its own."""
        self.calls.begin()
        self.backend.clear()

    def propagate(self, batch: Packed, share: float) -> None:
        """Add the gradient of a micro-batch, times `share`, to that of the step; each has its own dropout."""
        seed = mixed(self.settings.seed, self.step, self.backend.micro_batches)
        self.backend.propagate(batch, share, seed=seed)

    def loss(self) -> float:
        """The mean loss of the step in nats; the next batch is drawn while the device works."""
        following = self.batches.look_ahead() if self.backend.sends_batches else None
        if following is not None:
            self.backend.stage(following)
        loss = self.backend.loss()
        self.calls.end()
        if self.choice is not None and self.step == self.first_step + SETTLED:
            check_plan(self.choice)
        return loss

    def held_out_batches(self) -> PackedBatches:
        """The batches of an evaluation, from the beginning."""
        settings = self.settings
        return PackedBatches(
            self.held_out, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed
        )

    @torch.no_grad()
    def evaluate(self) -> float:
        """The mean loss on the held-out examples in nats a token, always on the same rows."""
        settings, model = self.settings, self.loaded.model.eval()
        batches = self.held_out_batches()
        total = count = 0.0
        for _ in range(settings.eval_batches):
            batch = batches.draw()
            for begin in range(0, len(batch.tokens), self.micro_batch):
                total += self.backend.evaluate(batch.part(begin, begin + self.micro_batch))
            count += batch.weight
        model.train()
        return total / max(count, 1.0)

    @torch.no_grad()
    def sample(self, count: int) -> str:
        """Let the model continue the beginning of a held-out example with the likeliest tokens: nothing is drawn.

        Args:
            count: Tokens to add.

        Returns:
            The end of the beginning, an arrow, and what the model makes of it.
        """
        tokenizer = self.loaded.tokenizer
        begin = self.held_out[0].beginning[: self.settings.train_seq_length - 1]
        backend = cast("TextBackend", self.backend)
        written = backend.write(begin, count, padding=tokenizer.eos_token_id or 0)
        return shown(tokenizer, written[: len(begin)], written[len(begin) :])

    def park(self, folder: CheckpointFolder) -> bool:
        """Leave what is trained with the weight server, for the next process; False where there is none.

        Args:
            folder: Gets all the rest.

        Raises:
            CheckpointError: That cannot be written.
        """
        if not self.weight_client.keeps:
            return False
        token = f"{self.step}-{uuid.uuid4()}"
        try:
            self.weight_client.park(token)
        except WeightServerError as error:
            log.warning("%s: a checkpoint is written instead", error)
            return False
        files = {RANDOM: writer(random_states())}
        try:
            folder.write(self.step, files, facts(self, self.identity) | {RESTING: token}, best=False)
        except CheckpointError:
            self.weight_client.park(None)
            raise
        return True

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
            **self._weight_files(),
            OPTIMIZER: writer(self.backend.optimizer.tensors()),
            RANDOM: writer(random_states()),
        }
        return folder.write(self.step, files, facts(self, self.identity), best=best)

    def first_non_finite(self) -> str:
        """The name of the first trained or optimizer tensor that holds NaN or infinity; empty if none does."""
        return first_non_finite(self.backend.weights.tensors() | self.backend.optimizer.tensors())

    def _load_trained(self, checkpoint: Checkpoint) -> None:
        """Take what is trained out of a checkpoint, or where the process before has left it."""
        token = checkpoint.state.get(RESTING)
        if token is None:
            if self.lora is None:
                copy_tensors(load_file(checkpoint.folder / MODEL), own_tensors(self.loaded.model))
            else:
                load_adapters(self.loaded.model, checkpoint.folder)
            copy_tensors(load_file(checkpoint.folder / OPTIMIZER), self.backend.optimizer.tensors())
        elif token != self.weight_client.parked:
            raise CheckpointError(f"the weight server does not hold what {checkpoint.folder} stands for")
        try:
            self.weight_client.park(None)
        except WeightServerError as error:
            raise CheckpointError(f"the checkpoint {checkpoint.folder} cannot be loaded: {error}") from error
        self.backend.refresh()

    def _weight_files(self) -> dict[str, Callable[[Path], object]]:
        """What is trained: adapters as PEFT has them, or the whole model as Transformers has it."""
        model = self.loaded.model
        if self.lora is None:
            texts = {
                "config.json": model.config.to_json_string().encode(),
                "generation_config.json": model.generation_config.to_json_string().encode(),
                **tokenizer_files(self.loaded.tokenizer),
            }
            files = {name: partial(Path.write_bytes, data=text) for name, text in texts.items()}
            return {MODEL: writer(own_tensors(model)), **files}
        text = json.dumps(adapter_config(model, self.lora, base=self.loaded.name), indent=2)
        return {
            WEIGHTS: writer(adapter_tensors(model)),
            CONFIG: lambda path: path.write_text(text + "\n", encoding="utf-8"),
        }

    def check_data(self) -> None:
        """Read the examples once.

        Raises:
            DataError: One is wrong.
        """
        check_examples(self.corpus)

    def begin_anew(self) -> None:
        """Refuse weights that an earlier process may have trained: without a checkpoint nobody knows how far.

        Raises:
            CheckpointError: A weight server holds some; the next process loads the model again.
        """
        if self.weight_client.facts is not None:
            self.weight_client.forget()
            raise CheckpointError("a process has left its weights, and no whole checkpoint: they are loaded anew")

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
        remarks = resume(self, checkpoint, self.identity, self._load_trained, branch=branch)
        if RESTING in checkpoint.state:
            shutil.rmtree(checkpoint.folder, ignore_errors=True)  # what it stands for is changed from now on
        self.first_step = self.step
        return remarks


def shown(tokenizer: Any, begin: list[int], added: list[int]) -> str:  # noqa: ANN401 - of Transformers
    """The end of a beginning, an arrow, and what a model makes of it.

    Args:
        tokenizer: Of the model.
        begin: The beginning.
        added: What the model has added.
    """
    given, made = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in (begin, added))
    return f"{given if len(given) <= SHOWN else '…' + given[1 - SHOWN :]} → {made}"


def new_tuning(settings: TrainSettings, tuning: TuneSettings) -> TuneState:
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
    weight_client = open_weight_client(settings, tuning)
    step, choice = settle(settings, tuning)
    seed_everything(settings.seed)
    lora = LoraConfig.of(tuning) if tuning.lora_rank else None
    whole = lora is None or settings.device == "cpu"  # weights that are trained need every bit
    device = "cpu" if weight_client.facts is None else "meta"
    loaded = load_model(tuning.model, device=device, dtype=torch.float32 if whole else torch.bfloat16)
    corpus = Corpus(
        path, loaded.tokenizer, answers_only=tuning.learn == "answers", selective=SelectiveLoss.of(tuning)
    )
    learned, held_out = (Chosen(corpus, numbers) for numbers in split(corpus, settings))
    name = name_of(loaded.model) if weight_client.facts is None else str(weight_client.facts["name"])
    check_length(loaded.model, settings.train_seq_length)
    if lora is not None:
        add_adapters(loaded.model, lora)
    backend = choose_backend(
        loaded.model, settings, WeightPlacement(settings.device, tuning.quantize, weight_client, name), step
    )
    PackedBatches(
        held_out, size=1, length=settings.train_seq_length, seed=settings.seed
    ).draw()  # can be evaluated
    examples = PackedBatches(
        learned, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed,
        weighs=tuning.distrust == "weighted", prepared=backend.sends_batches,
        selective_from=tuning.selective_loss_from,
    )  # fmt: skip
    identity = settings.identity() | {"examples": fingerprint(path), "model": name}
    if tuning.distrust == "added":
        say_added_term(corpus, tuning.distrust_alpha)
    batches = Ahead(examples, device="cpu" if backend.sends_batches else settings.device)
    captures = backend.sends_batches and settings.device == "cuda"
    return TuneState(
        settings, tuning, loaded, lora, backend, examples, batches, held_out, identity,
        corpus=corpus, weight_client=backend.weight_client, choice=choice,
        micro_batch=backend.rows, calls=AllocatorCalls(enabled=captures),
    )  # fmt: skip
