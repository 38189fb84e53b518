"""Hardware profiles: settings that suit a machine's memory, by the size of the model."""

import json
import math
import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from holdwater.errors import ConfigError
from holdwater.units import Bytes, parse_size

NAMES = (
    "base_16gb",
    "pro_32gb",
    "max_64gb",
    "ultra_96gb",
    "ultra_192gb",
    "gpu_24gb",
    "gpu_48gb",
    "gpu_80gb",
    "gpu_141gb",
)
TUNING_KEYS = {"lora_rank", "lora_layers", "batch_size", "train_seq_length", "quantize"}
PRESET_KEYS = {"batch_size", "train_seq_length"}
FAR = 4.0
"""A row of settings is used for models up to so many times larger or smaller."""
TOLERANCE = 0.9
"""A machine of 15.6 GB is sold as one of 16: a profile fits from this share of its nominal memory on."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings for one class of machine."""

    name: str
    memory: Bytes
    """Of the machine, or of the GPU."""
    kind: str
    """`machine` (memory that the CPU, and on Apple silicon the GPU, uses) or `gpu`."""
    presets: dict[str, dict[str, Any]]
    """Settings for training from scratch, by preset."""
    models: dict[str, dict[str, Any]]
    """Settings for fine-tuning, by the size of the model, such as `8b`: so many billions of weights."""
    names: dict[str, str] = field(default_factory=dict)
    """Short names of models, in addition to those of `names.yaml`."""

    def row(self, model: str | None, preset: str) -> dict[str, Any]:
        """The settings for a model.

        Args:
            model: To fine-tune: a folder or a hub name; None trains from scratch.
            preset: What is trained from scratch.

        Returns:
            Those of the size that is nearest; none where the size is not known, or far from all.
        """
        if model is None:
            return self.presets.get(preset, {})
        billions = size_of(model)
        if billions is None or not self.models:
            return {}

        def distance(name: str) -> float:
            """How many times larger or smaller a row's models are."""
            return abs(math.log(float(name.removesuffix("b")) / billions))

        nearest = min(self.models, key=distance)
        return self.models[nearest] if distance(nearest) < math.log(FAR) else {}


def size_of(model: str) -> float | None:
    """Weights of a model in billions: from its configuration, or from its name.

    Args:
        model: A folder, or a hub name such as `meta-llama/Llama-3.1-8B`.

    Returns:
        The size; None where neither says it.
    """
    named = re.search(r"(\d+(?:\.\d+)?)b\b", model.rstrip("/").rpartition("/")[2], re.IGNORECASE)
    try:
        known = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
        width, layers, inner = (
            int(known[name]) for name in ("hidden_size", "num_hidden_layers", "intermediate_size")
        )
        heads, vocabulary = int(known["num_attention_heads"]), int(known["vocab_size"])
    except (OSError, ValueError, KeyError):
        return float(named[1]) if named else None
    keys = width * int(known.get("num_key_value_heads") or heads) / heads
    tables = 1 if known.get("tie_word_embeddings") else 2
    return (layers * width * (2 * width + 2 * keys + 3 * inner) + tables * vocabulary * width) / 1e9


def positions_of(model: str) -> float:
    """Positions that a model in a folder has, by its configuration; infinite where that does not say it.

    Args:
        model: A folder, or a hub name.
    """
    try:
        known = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
        known |= known.get("text_config") or {}
        return int(known.get("max_position_embeddings") or known["n_positions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return math.inf


def full_name(model: str, profile: Profile | None) -> str:
    """The name that a short name of a model stands for.

    Args:
        model: As it was given; a folder of that name comes first.
        profile: May have names of its own.
    """
    if Path(model).expanduser().exists():
        return model
    known = yaml.safe_load((files("holdwater.config") / "profiles" / "names.yaml").read_text(encoding="utf-8"))
    return str((known | ({} if profile is None else profile.names)).get(model, model))


def load_profile(name: str) -> Profile:
    """Load a profile by its name, or from a YAML file of the same form.

    Args:
        name: One of `NAMES`, or the path of a file.

    Returns:
        The profile.

    Raises:
        ConfigError: There is no such profile, or its file has a mistake.
    """
    if name in NAMES:
        text = (files("holdwater.config") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
        return _parse(name, text)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"profile is {name!r}, but no profile or file has that name; write one of {', '.join(NAMES)}"
        )
    return _parse(path.stem, path.read_text(encoding="utf-8"))


def choose_profile(memory: Bytes, *, gpu: bool) -> Profile | None:
    """Choose the largest profile that a machine can fill.

    Args:
        memory: Of the machine, or of its GPU.
        gpu: Whether that is a GPU's memory.

    Returns:
        The profile; None for a machine smaller than the smallest.
    """
    kind = "gpu" if gpu else "machine"
    profiles = [profile for profile in map(load_profile, NAMES) if profile.kind == kind]
    fitting = [profile for profile in profiles if TOLERANCE * profile.memory <= memory]
    return max(fitting, key=lambda profile: profile.memory, default=None)


def _parse(name: str, text: str) -> Profile:
    """Read a profile and check its keys."""
    try:
        content = yaml.safe_load(text)
        memory, kind = parse_size(str(content["memory"])), str(content["kind"])
        presets, models = dict(content.get("presets") or {}), dict(content.get("models") or {})
        names = {str(short): str(name) for short, name in dict(content.get("names") or {}).items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"profile {name}: {error}; it needs memory, kind, presets and models") from None
    if kind not in {"machine", "gpu"}:
        raise ConfigError(f"profile {name}: kind is {kind!r}; write machine or gpu")
    for table, known in ((presets, PRESET_KEYS), (models, TUNING_KEYS)):
        for row, values in table.items():
            unknown = set(values) - known
            if unknown:
                raise ConfigError(
                    f"profile {name}: {row} has the unknown key {min(unknown)}; "
                    f"write one of {', '.join(sorted(known))}"
                )
    return Profile(name, memory, kind, presets, models, names)
