"""What `--backend mlx` needs, and which settings make no sense with it."""

import importlib

from holdwater.config import Config
from holdwater.errors import ConfigError

INSTALL = "on Linux its package is mlx[cpu]; write: pip install mlx mlx-lm"
FOR_PICTURES = "it is for pictures, and --backend mlx learns from text only"
REFUSED: dict[str, tuple[object, str]] = {
    "adapt_vision": (False, FOR_PICTURES),
    "adapt_projector": (False, FOR_PICTURES),
    "vision_cache": (None, FOR_PICTURES),
    "vision_cache_folder": (None, FOR_PICTURES),
    "max_pixels": (None, FOR_PICTURES),
    "bad_pictures": ("stop", FOR_PICTURES),
    "device": ("auto", "--backend mlx uses Metal where there is one, and the CPU elsewhere"),
    "threads": (None, "it counts PyTorch's threads, and MLX has its own"),
}
"""The only value that a setting may have, and why."""


def check_mlx(config: Config) -> None:
    """Refuse settings that `--backend mlx` cannot follow, and say what is not installed.

    Args:
        config: The gathered configuration, which names a model.

    Raises:
        ConfigError: The first mistake; it names the key, its value, the reason and what to write.
    """
    for name, (only, why) in REFUSED.items():
        if config[name] != only:
            raise ConfigError(f"{name} is {_shown(config[name])}, but {why}; leave it out")
    if not config["lora_rank"]:
        raise ConfigError("lora_rank is 0, but --backend mlx trains adapters only; write --lora-rank 8, say")
    if config["gradient_checkpointing"] and config["lora_dropout"]:
        raise ConfigError(
            f"lora_dropout is {config['lora_dropout']:g}, but layers that are computed again by MLX would draw "
            "another dropout; leave out lora_dropout or gradient_checkpointing"
        )
    for name in ("mlx.core", "mlx_lm"):
        try:
            importlib.import_module(name)
        except (ImportError, ValueError) as error:  # mlx_lm sets a limit on open files, which may be refused
            package = (getattr(error, "name", None) or name).partition(".")[0]
            raise ConfigError(
                f"--backend mlx needs {package}, which cannot be imported ({error}); {INSTALL}"
            ) from error


def _shown(value: object) -> str:
    """A value as users write it."""
    return "yes" if value is True else str(value)
