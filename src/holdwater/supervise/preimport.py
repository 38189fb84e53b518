"""Find what the fork server imports for a script, and which environment variables these imports need."""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdwater.supervise.script_imports import ScriptImports

log = logging.getLogger("holdwater")

OURS = (
    "holdwater.frameworks.observed_script",
    "holdwater.resume.resumable",
    "holdwater.supervise.budget_callback",
)
WORTH_IT = frozenset((
    "torch", "numpy", "transformers", "peft", "trl", "datasets", "accelerate", "torchvision", "torchaudio",
    "lightning", "pytorch_lightning", "scipy", "pandas", "sklearn", "safetensors", "tokenizers", "PIL", "timm",
    "diffusers", "sentence_transformers", "mlx", "mlx_lm", "matplotlib",
))  # fmt: skip
"""Packages that take long to import, and whose import runs no tensor operation and touches no device."""
LAZY = {
    "torch": ("torch._dynamo", "holdwater.resume.state_codec", "holdwater.resume.exactness", "numpy"),
    "mlx": ("holdwater.resume.stored_states", "holdwater.resume.unregistered", "numpy"),
}
"""Modules that a package imports only on use, and that are worth importing before."""


USE_METAL = frozenset(("mlx", "mlx_lm"))
"""Packages that each process on macOS imports itself: Apple's frameworks do not survive a fork."""


@dataclass(frozen=True, slots=True)
class Preimport:
    """What the fork server imports, and with which environment."""

    modules: list[str]
    environment: Mapping[str, str]
    """Variables that the script sets before its imports, which read them."""
    folder: str | None = None
    """Where the script's own modules lie, which hide installed ones; None if Python does not search there."""


def prepare(words: Sequence[str]) -> Preimport:
    """Find those packages that a script imports and that are known to be worth importing in the fork server.

    Args:
        words: `SCRIPT` and its arguments, or `-m MODULE` and its arguments.
    """
    is_module, safe = words[0] == "-m", bool(sys.flags.isolated or sys.flags.safe_path)
    beside = str(Path.cwd() if is_module else Path(words[0]).resolve().parent)
    folder = None if safe else beside
    found = ScriptImports(folder, WORTH_IT)
    if is_module:
        found.follow_module(words[1])
    else:
        found.follow_script(str(Path(words[0], "__main__.py") if Path(words[0]).is_dir() else words[0]))
    if not found.is_foreseen:
        log.info(
            "the script changes its environment in a way that cannot be foreseen: each process imports %s "
            "itself, which takes seconds; set constants at its beginning, or outside",
            "what comes later" if found.modules else "everything",
        )
    if not found.modules:
        return Preimport(list(OURS), {}, folder)
    names = list(dict.fromkeys(found.modules))
    packages = sorted({_package(name) for name in names})
    names = [name for name in names if sys.platform != "darwin" or _package(name) not in USE_METAL]
    lazy = [name for package in packages for name in LAZY.get(package, ()) if found.is_foreseen]
    return Preimport([*OURS, *names, *lazy], found.settled, folder)


def _package(name: str) -> str:
    """The package of `module` or `module:attribute`."""
    return name.partition(":")[0].partition(".")[0]
