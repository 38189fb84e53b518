"""Every key of the configuration: how it is read, its bounds, what it means, its default, which commands have it.

The flags of each command are made from this table, so it imports nothing that takes time.
"""

from itertools import chain
from typing import Any, Literal, NamedTuple

from holdwater.config.readers import (
    Reader,
    bits,
    choice,
    path,
    percentage,
    rate,
    real,
    size,
    some_of,
    switch,
    text,
    whole,
)

Command = Literal["train", "plan", "run", "watch", "replay"]
"""A command that has flags for keys; `plan` takes all those of `train`, and shows its own."""

MODEL, ADAPTERS, STEPS, EVALUATION = "model and data", "adapters", "steps", "evaluation"
FOLDER, VERDICT, MEMORY, PROCESSES = "folder and checkpoints", "verdict", "memory", "processes"
"""The groups of flags in help texts."""


class OtherDefault(NamedTuple):
    """A default that differs from the usual one."""

    value: Any
    shown: str
    """For the help text."""


class Key(NamedTuple):
    """One key of the configuration; its flag is the name with dashes."""

    name: str
    read: Reader
    default: Any
    help: str
    metavar: str = "N"
    short: str = ""
    """The flag's name where it is shorter than the key's."""
    commands: tuple[Command, ...] = ("train",)
    """Those that have a flag for it."""
    in_run: OtherDefault | None = None
    """The default of `holdwater run`."""
    tuned: OtherDefault | None = None
    """The default of fine-tuning."""

    @property
    def flag(self) -> str:
        """The key as a flag."""
        return "--" + (self.short or self.name).replace("_", "-")

    def default_for(self, command: Command) -> Any:  # noqa: ANN401 - each key has its own type
        """The value where a command was given none.

        Args:
            command: Its name.
        """
        return self.in_run.value if command == "run" and self.in_run is not None else self.default

    def shown_default(self, command: Command) -> str:
        """The default, to be added to the help text; empty where that has it already.

        Args:
            command: The command that is described.
        """
        if command == "run" and self.in_run is not None:
            return f" (default: {self.in_run.shown})"
        if command == "plan" and self.tuned is not None:
            return f" (default: {self.tuned.shown})"
        if self.default is None:
            return ""
        units = {1e6: "1 MB", 0.8: "80"} if isinstance(self.default, float) else {}
        shown = units.get(self.default, self.default)
        tuned = "" if self.tuned is None else f"; with --model {self.tuned.shown}"
        return f" (default: {shown}{tuned})"


SUPERVISED: tuple[Command, ...] = ("train", "run")
WITH_BUDGETS: tuple[Command, ...] = ("train", "run", "watch")
JUDGING: tuple[Command, ...] = ("train", "run", "watch", "replay")
PLANNED: tuple[Command, ...] = ("train", "plan")
REPLACED: tuple[Command, ...] = ("train", "plan", "run")
FAILURES = ("leak", "warming", "fragmentation", "over-budget")
"""What `--fail-on` may name."""
ALL_WEIGHTS_RATE = 1e-5
"""The default learning rate where all weights of a model are fine-tuned."""

KEYS_BY_GROUP: dict[str, tuple[Key, ...]] = {
    MODEL: (
        Key("preset", choice("tiny", "small", "medium", "large"), "small", "size of the model", "NAME"),
        Key(
            "data",
            text,
            None,
            "UTF-8 text: a file or a glob (default: Python's standard library)",
            "GLOB",
            commands=PLANNED,
        ),
        Key("level", choice("byte", "character"), "byte", "what a token is: byte or character", "LEVEL"),
        Key(
            "model",
            text,
            None,
            "model to fine-tune: a folder or a hub name (none: from scratch)",
            "NAME",
            commands=PLANNED,
        ),
        Key("backend", choice("torch", "mlx"), "torch", "what fine-tunes: torch, or mlx (Apple silicon)", "NAME"),
        Key("learn", choice("answers", "everything"), "answers", "what of an example is learned", "WHAT"),
        Key(
            "selective_loss",
            choice("none", "json"),
            "none",
            "leave out of the loss: none, or json, the structure of answers in JSON",
            "WHAT",
        ),
        Key(
            "selective_loss_keys",
            choice("learn", "leave-out"),
            "learn",
            "with it, keys of objects and null: learn or leave-out",
            "HOW",
        ),
        Key(
            "selective_loss_from",
            whole(0),
            0,
            "with it, the first epoch that leaves out, from 0",
            "EPOCH",
        ),
        Key("distrust", choice("off", "added", "weighted"), "off", "how an example's source counts", "HOW"),
        Key("distrust_alpha", real(2.3, 3.0, example=2.7), 2.7, "factor of the distrust term", "X"),
        Key("max_pixels", whole(1), None, "most pixels of a resized picture (the model's own)", commands=PLANNED),
        Key("bad_pictures", choice("stop", "skip"), "stop", "what follows a picture that cannot be read", "WHAT"),
        Key(
            "vision_cache",
            size,
            None,
            "keep features of pictures, up to this size (none)",
            "SIZE",
            commands=PLANNED,
        ),
        Key("vision_cache_folder", path, None, "keep them in this folder (in the host's memory)", "FOLDER"),
        Key("merged", path, None, "write the model with its adapters here at the end (adapters only)", "FOLDER"),
    ),
    ADAPTERS: (
        Key(
            "lora_rank",
            whole(0, 4096),
            16,
            "rank of the adapters; 0 trains all weights, for small models",
            commands=PLANNED,
        ),
        Key(
            "lora_alpha",
            real(0, 1e5, example=32, above=True),
            None,
            "their scale times the rank (twice the rank)",
            "X",
        ),
        Key("lora_dropout", real(0, 0.99, example=0.05), 0.0, "dropout before them", "X", commands=PLANNED),
        Key(
            "lora_targets",
            text,
            None,
            "layers that get them, such as q_proj,v_proj (all linear ones)",
            "NAMES",
            commands=PLANNED,
        ),
        Key("lora_layers", whole(1), None, "how many of the last layers get them (all)", commands=PLANNED),
        Key(
            "adapt_vision",
            switch,
            default=False,
            help="adapters for the vision tower as well",
            metavar="yes",
            commands=PLANNED,
        ),
        Key(
            "adapt_projector",
            switch,
            default=False,
            help="adapters for the projector behind the vision tower as well",
            metavar="yes",
            commands=PLANNED,
        ),
        Key("quantize", bits, None, "bits of a frozen weight, 4 or 8 (as they are)", "BITS", commands=PLANNED),
    ),
    STEPS: (
        Key("steps", whole(1), 10_000, "optimizer steps to train for"),
        Key("batch_size", whole(1), 1, "sequences in a micro-batch", commands=PLANNED),
        Key(
            "train_seq_length",
            whole(2, 1_048_576),
            64,
            "tokens in a sequence",
            commands=PLANNED,
            tuned=OtherDefault(2048, "2048, or what the model has positions for"),
        ),
        Key("gradient_accumulation", whole(1), 1, "micro-batches in an optimizer step"),
        Key(
            "learning_rate",
            real(0, 1, example=0.001, above=True),
            1e-3,
            "peak learning rate",
            "RATE",
            tuned=OtherDefault(2e-4, "0.0002, and 0.00001 for all weights"),
        ),
        Key("warmup_steps", whole(0), 100, "steps in which the learning rate rises"),
        Key(
            "weight_decay",
            real(0, 10, example=0.1),
            0.1,
            "AdamW's weight decay, on matrices",
            "X",
            tuned=OtherDefault(0.0, "0"),
        ),
        Key("gradient_clip", real(0, 1e6, example=1.0, above=True), 1.0, "largest norm of the gradient", "X"),
        Key(
            "non_finite",
            choice("stop", "skip", "continue"),
            "stop",
            "after a loss that is not finite: stop the run, skip the step (it changes no weight), or continue",
            "WHAT",
        ),
        Key(
            "gradient_checkpointing",
            switch,
            default=False,
            help="with --backend mlx, compute layers again in the backward pass",
            metavar="yes",
        ),
        Key("seed", whole(0, 2**63 - 1), 0, "seed of weights, order and generated text"),
        Key("device", choice("auto", "cpu", "cuda", "mps"), "auto", "where to train", "NAME"),
        Key("threads", whole(1, 1024), None, "CPU threads (default: OMP_NUM_THREADS, or measured before step 1)"),
    ),
    EVALUATION: (
        Key("validation_share", real(0, 0.5, example=0.05, above=True), 0.05, "part held out to evaluate", "X"),
        Key("eval_interval", whole(1), 1000, "steps between two evaluations"),
        Key("eval_batches", whole(1), 20, "micro-batches in an evaluation"),
        Key("sample_length", whole(0, 100_000), 120, "tokens of text generated after an evaluation"),
    ),
    FOLDER: (
        Key(
            "checkpoint_interval",
            whole(1),
            1000,
            "steps between two checkpoints on disk",
            commands=SUPERVISED,
            in_run=OtherDefault(None, "every 5 minutes"),
        ),
        Key(
            "keep_checkpoints",
            whole(1),
            3,
            "how many of the newest checkpoints to keep; train keeps the best one too",
            commands=SUPERVISED,
        ),
        Key("out", path, None, "folder of the run (default: runs/DATE-train)", "FOLDER"),
    ),
    VERDICT: (
        Key(
            "fail_on",
            some_of(*FAILURES),
            None,
            "exit with 3 instead of 0 if one of these was found: some of " + ",".join(FAILURES) + " (none)",
            "LIST",
            commands=JUDGING,
        ),
        Key(
            "least",
            rate,
            None,
            "smallest leak that matters to --fail-on and to news, such as 1MB/step or 1kB (any)",
            "RATE",
            commands=JUDGING,
        ),
    ),
    MEMORY: (
        Key(
            "profile",
            text,
            None,
            "hardware profile, by name or file (default: chosen by the machine)",
            "NAME",
            commands=PLANNED,
        ),
        Key(
            "max_memory",
            size,
            None,
            "budget of the memory in which the training's tensors live, such as 70GB: the device's, or the host's "
            "where there is none (default: found)",
            "SIZE",
            commands=(*WITH_BUDGETS, "plan"),
        ),
        Key(
            "max_host_memory",
            size,
            None,
            "budget of the host's memory, where training uses a device (default: found)",
            "SIZE",
            commands=WITH_BUDGETS,
        ),
        Key(
            "wired_limit",
            size,
            None,
            "how much memory MLX may wire on macOS (default: its limit is left alone; see docs/apple-silicon.md)",
            "SIZE",
        ),
        Key("memory_leak_threshold_mb", rate, 1e6, "growth in MB per step above which remedies act", "MB"),
        Key(
            "memory_threshold_percentage",
            percentage,
            0.8,
            "share of the budget above which remedies begin",
            "PERCENT",
        ),
        Key("waiting_below", size, None, "available memory that makes the run wait (15GB or 20 %%)", "SIZE"),
        Key("stopping_below", size, None, "available memory that stops the run (10GB or 13 %%)", "SIZE"),
        Key("periodic_cache_clear_interval", whole(1), None, "steps between two clearings of caches (none)"),
        Key(
            "batch_size_reduction_factor",
            real(0, 0.99, example=0.5, above=True),
            0.5,
            "by what the micro-batch is made smaller when memory runs out",
            "X",
        ),
        Key(
            "remedies",
            choice("act", "dry-run"),
            "act",
            "act, or dry-run: only say what would be done",
            "HOW",
        ),
    ),
    PROCESSES: (
        Key(
            "reload_interval_steps",
            whole(1),
            None,
            "steps after which the process is replaced by a fresh one (never)",
            short="reload_interval",
            commands=REPLACED,
        ),
        Key(
            "reload_memory_threshold_gb",
            size,
            None,
            "memory in use above which the process is replaced (when it would leave the budget)",
            "SIZE",
            short="reload_threshold",
            commands=REPLACED,
        ),
        Key(
            "hang_timeout",
            real(0, 1e7, example=600, above=True),
            None,
            "seconds without a step after which the process is replaced (never)",
            "SECONDS",
            commands=SUPERVISED,
        ),
        Key("max_restarts", whole(0), 1000, "how often a process that died is started again", commands=SUPERVISED),
    ),
}
"""In the order of the help text."""

KEYS: tuple[Key, ...] = tuple(chain.from_iterable(KEYS_BY_GROUP.values()))

BY_NAME = {key.name: key for key in KEYS}
