"""Write a model with its adapters added to its weights: a folder that any program reads as it reads the model."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from holdwater.errors import RunFolderError
from holdwater.train.finetune.model.loading import Loaded, load_model
from holdwater.train.finetune.model.lora import CONFIG, LoraConfig, add_adapters, load_adapters, merge_adapters

log = logging.getLogger("holdwater")


def load_to_merge(name: str) -> Loaded:
    """Load a causal language model as it is stored.

    Args:
        name: A folder, or a name on the hub.
    """
    return load_model(name, device="cpu", dtype="auto")


def write_merged(
    name: str, adapters: Path, folder: Path, *, load: Callable[[str], Loaded] = load_to_merge
) -> None:
    """Load a model as it is stored, add adapters, and write it whole, or not at all.

    Weights that were trained in few bits are not rounded: the adapters are added to those of the files.

    Args:
        name: Of the model: a folder, or a name on the hub.
        adapters: A checkpoint of fine-tuning, or adapters that PEFT has written.
        folder: Is made.
        load: Loads the model.

    Raises:
        RunFolderError: The folder is there already, or cannot be written.
        ModelError: The model cannot be loaded.
    """
    if folder.exists():
        raise RunFolderError(f"--merged {folder} is there already; name another folder")
    loaded = load(name)
    add_adapters(loaded.model, read_config(adapters))
    load_adapters(loaded.model, adapters)
    merge_adapters(loaded.model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        loaded.model.save_pretrained(aside)
        loaded.tokenizer.save_pretrained(aside)
        for file, text in loaded.processor.items():
            (aside / file).write_text(text, encoding="utf-8")
        aside.rename(folder)
    except OSError as error:
        raise RunFolderError(f"--merged {folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("%s is the model with its adapters, added to its own weights, none of them in few bits", folder)


def read_config(adapters: Path) -> LoraConfig:
    """What adapters a folder holds.

    Args:
        adapters: With the configuration that PEFT writes.

    Raises:
        RunFolderError: There is none.
    """
    try:
        found = json.loads((adapters / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{adapters} holds no adapters ({error}); name a checkpoint of fine-tuning"
        ) from error
    numbers, targets = found.get("layers_to_transform"), found["target_modules"]
    return LoraConfig(
        rank=found["r"],
        alpha=found["lora_alpha"],
        targets=[] if isinstance(targets, str) else sorted(targets),
        layers=None if numbers is None else len(numbers),
        pattern=targets if isinstance(targets, str) else "",
    )
