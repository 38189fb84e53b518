"""Load a causal language model of Transformers, from a folder or the hub: safetensors only, no code of its own.

A model that is not there, one that needs a permission, one whose files are damaged, and one that does not fit are
four different messages.
"""

import importlib
import json
import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from holdwater.errors import ConfigError, ModelError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.process.restart_context import is_first_process
from holdwater.train.finetune.attention_masks import attention_masks
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.losses import chunked_cross_entropy
from holdwater.train.finetune.model.hub import hub_is_away
from holdwater.train.finetune.model.plain_head import has_plain_head

log = logging.getLogger("holdwater")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any
    name: str
    """As it was asked for."""
    processor: dict[str, str] = field(default_factory=dict)
    """What the files of its processor of pictures hold, by their names."""


PRELOADED: dict[str, Any] = {}
"""Tokenizers that were loaded before this process was forked, by the name of their model."""


def load_model(name: str, *, device: str, dtype: torch.dtype | Literal["auto"]) -> Loaded:
    """Load a model's weights and its tokenizer.

    Args:
        name: A folder, or a name on the hub.
        device: Where the weights are put; `meta` loads none of them.
        dtype: Of the weights; `auto` takes them as they are stored.

    Returns:
        The model in training mode, and the tokenizer.

    Raises:
        ModelError: It is not there, needs a permission, is damaged, is no causal language model, or does not fit.
    """
    transformers = import_transformers()
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(folder)
    elif name.startswith((".", "/", "~")):
        raise ModelError(f"--model {name}: there is no such folder; name one that holds config.json")
    where = str(folder) if folder.is_dir() else name
    local = folder.is_dir() or hub_is_away()
    if not local and is_first_process():
        log.info("there is no folder %s here: the hub is asked for a model of that name", name)
    try:
        if not folder.is_dir():
            # asks once where there is none; a tokenizer asks twice
            transformers.AutoConfig.from_pretrained(name, local_files_only=local)
        tokenizer = PRELOADED.get(name) or transformers.AutoTokenizer.from_pretrained(
            where, local_files_only=local
        )
        if device == "meta":
            with torch.device("meta"):
                config = transformers.AutoConfig.from_pretrained(where, local_files_only=local)
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                where, dtype=dtype, use_safetensors=True, local_files_only=local
            )
            model.to(device)
    except Exception as error:
        raise ModelError(told(name, error)) from error
    return Loaded(model.train(), tokenizer, name)


def generate(model: Any, tokens: list[int], count: int, *, device: str, padding: int) -> list[int]:  # noqa: ANN401
    """Let a model continue some tokens with the likeliest ones, by Transformers' generation.

    Args:
        model: In training mode.
        tokens: One or more.
        count: Tokens to add, at most.
        device: Where the model is.
        padding: The token that stands for none.

    Returns:
        The tokens, and those that were added.
    """
    given = torch.tensor([tokens], device=device)
    found = model.eval().generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, use_cache=True,
        pad_token_id=padding,
    )  # fmt: skip
    model.train()
    return list(found[0].tolist())


@lru_cache(maxsize=1)
def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:  # noqa: ANN401 - of Transformers
    """What the files of a tokenizer hold, by their names."""
    with TemporaryDirectory(prefix="holdwater-") as place:
        tokenizer.save_pretrained(place)
        return {path.name: path.read_bytes() for path in Path(place).iterdir() if path.is_file()}


def check_length(model: Any, length: int) -> None:  # noqa: ANN401 - of Transformers
    """Refuse rows that are longer than a model has positions, or warn where longer ones may work.

    Args:
        model: Of any kind.
        length: Tokens in a row.

    Raises:
        ConfigError: The model has learned a position each, and no more.
    """
    config = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if most is None or length <= most:
        return
    said = f"train_seq_length is {length}, but the model was made for {most} positions"
    if getattr(config, "rope_parameters", None) is None:
        raise ConfigError(f"{said}; write --train-seq-length {most} or less")
    if is_first_process():
        log.warning("%s: it may do badly beyond", said)


def import_transformers() -> Any:  # noqa: ANN401 - a module without types of its own
    """Import Transformers.

    Raises:
        ModelError: It is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")  # takes seconds, and is an extra
    except ImportError as error:
        raise ModelError(
            f"fine-tuning needs {error.name}, which is not installed; write: pip install transformers"
        ) from error
    transformers.utils.logging.disable_progress_bar()  # a bar for each file would hide our own line
    return transformers


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no whole model, before anything is loaded."""
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"--model {folder}: config.json cannot be read ({error.strerror}); name the folder of a model"
        ) from error
    except ValueError as error:
        raise ModelError(
            f"--model {folder}: config.json is damaged ({error}); copy or download it again"
        ) from error
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(path.name for path in folder.glob("*.bin")) or ["no weights"]
        raise ModelError(
            f"--model {folder} holds {others[0]} and no .safetensors; "
            "save the model as safetensors, the only format that runs no code when it is read"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                list(weights.keys())
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"--model {folder}: {file.name} is damaged ({error}); copy or download it again"
            ) from error


def told(name: str, error: Exception) -> str:  # noqa: PLR0911 - a message for each kind of failure
    """What a failure means, and what to do about it."""
    kinds = {kind.__name__ for kind in type(error).__mro__} | {
        kind.__name__ for cause in (error.__cause__, error.__context__) if cause for kind in type(cause).__mro__
    }
    text = str(error).lower()
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if is_out_of_memory(error):
        return (
            f"--model {name} does not fit into memory ({first}); "
            "use a smaller model, a device with more memory, or free what others hold"
        )
    if "GatedRepoError" in kinds:
        return (
            f"--model {name} needs a permission: ask for it on the model's page, then log in with `hf auth login`"
        )
    if "couldn't connect" in text or "internet connection" in text:
        return f"--model {name}: there is no such folder, and the hub cannot be reached; name a local folder"
    if kinds & {"RepositoryNotFoundError", "HFValidationError", "EntryNotFoundError"}:
        return f"--model {name}: there is no such model on the hub, and no such folder; check the name"
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}:
        return f"--model {name}: there is no such folder, and the hub cannot be reached; name a local folder"
    if "tokenizer" in text:
        return (
            f"--model {name} has no tokenizer that can be read ({first.rstrip(': ')}); copy tokenizer.json and "
            "tokenizer_config.json from the original model"
        )
    return f"--model {name} cannot be loaded: {type(error).__name__}: {first}"


def packed_loss(model: Any, packed: Packed, *, chunk: int) -> Tensor:  # noqa: ANN401 - a model of Transformers
    """The weighted sum of cross-entropies over the tokens of some rows, in nats.

    Args:
        model: A causal language model, with or without adapters.
        packed: The rows, on the model's device.
        chunk: Tokens whose logits exist at once.

    Returns:
        The sum, in float32. Shape ().
    """
    inputs = {
        "input_ids": packed.tokens,
        "position_ids": packed.positions,
        "attention_mask": attention_masks(model.config.get_text_config(), packed.mask()),
        "use_cache": False,
    }
    targets, weights = packed.targets.flatten(), packed.weights.flatten()
    if has_plain_head(model):
        hidden = getattr(model, model.base_model_prefix)(**inputs).last_hidden_state
        head: Tensor = model.get_output_embeddings().weight
        return chunked_cross_entropy(hidden.flatten(0, 1), head, targets, weights, chunk=chunk)
    logits = model(**inputs).logits.flatten(0, 1).float()
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum()
