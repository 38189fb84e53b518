"""Adapters of MLX models in the files of `mlx_lm`, and the same adapters in PEFT's format.

    python -m holdwater.train.finetune.mlx.adapters CHECKPOINT FOLDER

writes the adapters of a checkpoint to a folder that PEFT loads.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from holdwater.errors import ConfigError, RunFolderError
from holdwater.train.finetune.model.lora import PREFIX
from holdwater.train.finetune.model.lora import WEIGHTS as PEFT_WEIGHTS
from holdwater.train.settings import TuneSettings

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"
"""The files of adapters, as `mlx_lm` names them."""


def lora_parameters(model: Any, tuning: TuneSettings) -> dict[str, Any]:  # noqa: ANN401 - a model of mlx_lm
    """What adapters a model gets, as `mlx_lm` wants to know it.

    Args:
        model: Without adapters.
        tuning: The settings of the run.

    Returns:
        Rank, scale, dropout, and the names of the layers within a block.

    Raises:
        ConfigError: No layer has such a name.
    """
    names = _linear_names(model)
    known = {name.rpartition(".")[2] for name in names}
    wanted = {one.strip() for one in (tuning.lora_targets or "").split(",")} - {""} or known
    if not known or not wanted <= known:
        wrong = ", ".join(sorted(wanted - known)) or "all linear ones"
        raise ConfigError(
            f"lora_targets has {wrong}, but the linear layers of this model are "
            f"{', '.join(sorted(known)) or 'none'}; name some of these"
        )
    alpha = 2 * tuning.lora_rank if tuning.lora_alpha is None else tuning.lora_alpha
    return {
        "rank": tuning.lora_rank,
        "scale": alpha / tuning.lora_rank,
        "dropout": tuning.lora_dropout,
        "keys": sorted(name for name in names if name.rpartition(".")[2] in wanted),
    }


def _linear_names(model: Any) -> set[str]:  # noqa: ANN401
    """The names within a block of the layers that can be adapted: matrix products, also those of experts."""
    return {
        name
        for block in model.layers
        for name, module in block.named_modules()
        if hasattr(module, "to_lora") or type(module).__name__.endswith("Linear")
    }


def adapter_config(model: str, layers: int, parameters: Mapping[str, Any]) -> str:
    """The text of `adapter_config.json`.

    Args:
        model: The name or folder of the base model, for the record.
        layers: How many of the last blocks have adapters.
        parameters: As `lora_parameters` returns them.
    """
    config = {"model": model, "fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    return json.dumps(config, indent=2) + "\n"


def export_peft(checkpoint: Path, folder: Path) -> None:
    """Write the adapters of a checkpoint as PEFT has them.

    The names of layers are those of `mlx_lm`, which are Transformers' own for Llama, Qwen and most others.

    Args:
        checkpoint: A checkpoint of `--backend mlx`, or adapters that `mlx_lm` has written.
        folder: Is made.

    Raises:
        RunFolderError: There are no such adapters, or PEFT has no format for them.
    """
    try:
        config = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
        weights: Any = mx.load(str(checkpoint / WEIGHTS))
        described = _peft_config(config, list(weights))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{checkpoint} holds no adapters of mlx_lm ({error}); name a checkpoint") from error
    if any(array.ndim != 2 for array in weights.values()):
        raise RunFolderError(f"{checkpoint} holds adapters of experts, for which PEFT has another format")
    peft = {}
    for name, array in weights.items():
        layer, _, letter = name.rpartition(".lora_")
        peft[f"{PREFIX}{layer}.lora_{letter.upper()}.weight"] = mx.contiguous(array.T)
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / PEFT_WEIGHTS), peft, metadata={"format": "pt"})
    text = json.dumps(described, indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _peft_config(config: Mapping[str, Any], names: list[str]) -> dict[str, object]:
    """What PEFT wants to know of adapters."""
    parameters = config["lora_parameters"]
    layers = {name.rpartition(".lora_")[0] for name in names}
    numbers = sorted({int(part) for layer in layers for part in layer.split(".") if part.isdigit()})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.get("model"),
        "r": parameters["rank"],
        "lora_alpha": parameters["scale"] * parameters["rank"],
        "lora_dropout": parameters["dropout"],
        "bias": "none",
        "target_modules": sorted({layer.rpartition(".")[2] for layer in layers}),
        "layers_to_transform": numbers,
        "inference_mode": True,
    }


def main() -> None:
    """Export the adapters that the command line names."""
    parser = argparse.ArgumentParser(description="Write the adapters of a checkpoint in PEFT's format.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        export_peft(options.checkpoint, options.folder)
    except RunFolderError as error:
        sys.exit(f"holdwater: {error}")


if __name__ == "__main__":
    main()
