"""The settings of a training run, from scratch or fine-tuning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from holdwater.config import Config
from holdwater.errors import ConfigError
from holdwater.train.mlx_settings import check_mlx
from holdwater.units import Bytes

TokenLevel = Literal["byte", "character"]
"""The tokenization of a model from scratch."""
NonFinite = Literal["stop", "skip", "continue"]
"""What follows a loss that is not finite."""
SELECTIVE: dict[str, object] = {"selective_loss": "none", "selective_loss_keys": "learn", "selective_loss_from": 0}
LATER_SETTINGS: dict[str, object] = SELECTIVE | {
    "max_pixels": None, "bad_pictures": "stop", "adapt_vision": False, "adapt_projector": False,
    "backend": "torch", "gradient_checkpointing": False,
}  # fmt: skip
"""Settings that a run's identity holds only where they are used: older checkpoints and plans do not have them."""
OWN_AFFAIR = {"model", "max_memory", "vision_cache", "vision_cache_folder"}
"""Settings of fine-tuning that may change on resume: a model is identified by its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """The model that is fine-tuned, its adapters, and the data; each field is a key of the configuration."""

    model: str
    backend: Literal["torch", "mlx"]
    lora_rank: int
    lora_alpha: float | None
    lora_dropout: float
    lora_targets: str | None
    lora_layers: int | None
    quantize: Literal[4, 8] | None
    learn: Literal["answers", "everything"]
    selective_loss: Literal["none", "json"]
    selective_loss_keys: Literal["learn", "leave-out"]
    selective_loss_from: int
    """The first epoch, from 0, whose answers leave structure out."""
    distrust: Literal["off", "added", "weighted"]
    distrust_alpha: float
    max_pixels: int | None
    """Most pixels of a resized picture; None takes the model's own bound."""
    bad_pictures: Literal["stop", "skip"]
    vision_cache: Bytes | None
    """Most that features of pictures may take; None keeps none."""
    vision_cache_folder: Path | None
    """Where they are kept; None keeps them in the host's memory."""
    adapt_vision: bool
    """Whether the vision tower gets adapters."""
    adapt_projector: bool
    """Whether the projector between tower and language model gets them."""
    gradient_checkpointing: bool
    """Whether layers are computed again in the backward pass; PyTorch's steps follow a plan instead."""
    max_memory: Bytes | None
    """The process's budget; None uses the device's."""

    def __post_init__(self) -> None:
        if self.quantize is not None and not self.lora_rank:
            why = "weights that are trained need every bit"
            raise ConfigError(f"quantize is {self.quantize}, but lora_rank is 0: {why}; leave it out")
        for name, usual in SELECTIVE.items():
            value = getattr(self, name)
            if self.selective_loss == "none" and value != usual:
                why = "selective_loss is none"
                raise ConfigError(f"{name} is {value}, but {why}; set that to json, or leave {name} out")
        if self.gradient_checkpointing and self.backend == "torch":
            why = "the plan of PyTorch's steps chooses which layers are computed again"
            raise ConfigError(f"gradient_checkpointing is yes, but {why}; leave it out, or write --backend mlx")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What to train, on what, for how long; each field is a key of the configuration."""

    preset: str
    data: str | None
    level: TokenLevel
    steps: int
    batch_size: int
    train_seq_length: int
    gradient_accumulation: int
    batch_size_reduction_factor: float
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    non_finite: NonFinite
    validation_share: float
    eval_interval: int
    eval_batches: int
    sample_length: int
    checkpoint_interval: int
    keep_checkpoints: int
    seed: int
    merged: Path | None
    """Where the merged model is written at the end; None writes the adapters only."""
    device: str
    """`cpu`, `cuda`, `mps` or `mlx`: never `auto`."""
    threads: int
    out: Path
    tuning: TuneSettings | None = None
    """The settings of fine-tuning; None trains from scratch."""

    @property
    def tokens_in_step(self) -> int:
        """Tokens that one optimizer step learns from."""
        return self.batch_size * self.train_seq_length * self.gradient_accumulation

    def identity(self) -> dict[str, object]:
        """The settings that must be the same to resume exactly: all but length, folders and bookkeeping."""
        free = {"steps", "out", "data", "merged", "keep_checkpoints", "checkpoint_interval", "threads"}
        free |= {"batch_size_reduction_factor", "tuning", "non_finite"}
        own = {name: getattr(self, name) for name in self.__slots__ if name not in free}
        if self.tuning is None:
            return own
        tuned = {name: getattr(self.tuning, name) for name in TuneSettings.__slots__ if name not in OWN_AFFAIR}
        missing = object()
        return own | {name: value for name, value in tuned.items() if LATER_SETTINGS.get(name, missing) != value}


def train_settings(config: Config, out: Path) -> TrainSettings:
    """Read the training keys of a configuration, and choose device and threads.

    Args:
        config: The gathered configuration.
        out: The folder of the run.

    Returns:
        The settings.

    Raises:
        ConfigError: The device that was asked for is not there, or settings contradict one another.
    """
    if config["model"] is None:
        _check_flags(config)
    by_mlx = config["model"] is not None and config["backend"] == "mlx"
    if by_mlx:
        check_mlx(config)
    names = [name for name in TrainSettings.__slots__ if name not in {"device", "threads", "out", "tuning"}]
    tuned = None if config["model"] is None else {name: config[name] for name in TuneSettings.__slots__}
    return TrainSettings(
        **{name: config[name] for name in names},
        device="mlx" if by_mlx else _settle_device(config["device"]),
        threads=config["threads"] or torch.get_num_threads(),
        out=out,
        tuning=None if tuned is None else TuneSettings(**tuned),
    )


def _check_flags(config: Config) -> None:
    """Refuse flags of fine-tuning if no model is named."""
    own = {"merged", *TuneSettings.__slots__} - {"max_memory"}  # which all runs have
    for name in sorted(own):
        if config.origins[name].startswith("--"):
            raise ConfigError(
                f"{config.origins[name]} is {config[name]}, but it is for fine-tuning, and no model is named; "
                "add --model FOLDER, or leave it out"
            )


def _settle_device(name: str) -> str:
    """The device that was asked for, or the best there is."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, available in there.items() if available)
    if not there[name]:
        usable = ", ".join(device for device, available in there.items() if available)
        raise ConfigError(
            f"device is {name!r}, but torch {torch.__version__} sees none here; write {usable} or auto"
        )
    return name
