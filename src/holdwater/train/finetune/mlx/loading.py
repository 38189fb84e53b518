"""Load a model and its tokenizer for MLX: no code from the hub, and local folders without a network."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.quantized import quantize as quantize_layers
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from holdwater.errors import ConfigError, ModelError
from holdwater.process.restart_context import is_first_process
from holdwater.train.finetune.mlx.adapters import lora_parameters
from holdwater.train.finetune.mlx.trees import flat
from holdwater.train.finetune.model.hub import hub_is_away
from holdwater.train.finetune.model.loading import check_folder, import_transformers, told
from holdwater.train.settings import TuneSettings

log = logging.getLogger("holdwater")

GROUP = 64
"""Weights that share a scale, as `mlx_lm` quantizes unless it is told otherwise."""
FILES = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja"]
"""What of a model on the hub is fetched: nothing that could be run."""


@dataclass(frozen=True, slots=True)
class LoadedMlx:
    """A model with adapters, and its tokenizer."""

    model: Any
    tokenizer: Any
    """Of Transformers."""
    folder: Path
    config: dict[str, Any]
    """What `config.json` holds."""


def find_folder(name: str) -> Path:
    """The local folder of a model; one that is on the hub only is fetched.

    Args:
        name: A folder, or a name on the hub.

    Raises:
        ModelError: It is not there, or is damaged.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")):
            raise ModelError(f"--model {name}: there is no such folder; name one that holds config.json")
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - for names on the hub only

        try:
            folder = Path(snapshot_download(name, allow_patterns=FILES, local_files_only=hub_is_away()))
        except Exception as error:
            raise ModelError(told(name, error)) from error
    check_folder(folder)
    return folder


def load_mlx(name: str) -> LoadedMlx:
    """Load a model as it is stored.

    Args:
        name: A folder, or a name on the hub.

    Returns:
        The model, whose weights are read from their files when they are needed.

    Raises:
        ModelError: It cannot be loaded, or `mlx_lm` has no such model.
    """
    folder = find_folder(name)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model_file" in written:
        raise ModelError(f"--model {name} comes with code of its own, which is not run; name another model")
    try:
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model, config = load_model(folder, lazy=True)
    except Exception as error:
        raise ModelError(told(name, error)) from error
    return LoadedMlx(model, tokenizer, folder, config)


def read_weights(loaded: LoadedMlx, bits: int | None) -> None:
    """Read the weights into memory one after another, and store matrices in few bits if that was asked for.

    Args:
        loaded: A model without adapters.
        bits: Of a weight; None leaves all as they are.

    Raises:
        ConfigError: The model is stored in another number of bits.
    """
    stored = loaded.config.get("quantization")
    if stored is not None and bits not in {None, stored["bits"]}:
        raise ConfigError(f"quantize is {bits}, but the model is stored in {stored['bits']} bits; leave it out")
    if stored is None and bits is not None:
        _quantize(loaded.model, bits)
    arrays = flat(loaded.model.parameters())
    for array in arrays.values():
        mx.eval(array)  # by itself: the whole weight is freed when its few bits are there
    if bits is not None and is_first_process():
        few = sum(name.endswith(".scales") for name in arrays)
        matrices = sum(name.endswith(".weight") and array.ndim > 1 for name, array in arrays.items())
        log.info("%d of %d matrices are in %d bits", few, matrices, bits)


def _quantize(model: Any, bits: int) -> None:  # noqa: ANN401 - a model of mlx_lm
    """Store matrices in few bits, as `mlx_lm` does it."""
    chosen = getattr(model, "quant_predicate", None)

    def is_quantized(path: str, module: Any) -> Any:  # noqa: ANN401 - False, True or the model's own parameters
        """Whether and how a layer is."""
        if not hasattr(module, "to_quantized") or module.weight.shape[-1] % GROUP:
            return False
        return True if chosen is None else chosen(path, module)

    quantize_layers(model, group_size=GROUP, bits=bits, class_predicate=is_quantized)


def add_adapters(loaded: LoadedMlx, tuning: TuneSettings) -> tuple[int, dict[str, Any]]:
    """Freeze a model, and add adapters to the linear layers of its last blocks.

    Args:
        loaded: Its layers are replaced in place.
        tuning: Which layers, and how.

    Returns:
        How many blocks have adapters, and `mlx_lm`'s parameters of them.

    Raises:
        ConfigError: No layer has such a name.
    """
    model = loaded.model
    model.freeze()
    parameters = lora_parameters(model, tuning)
    blocks = len(model.layers)
    layers = min(tuning.lora_layers or blocks, blocks)
    if (tuning.lora_layers or 0) > blocks and is_first_process():
        log.info("lora_layers is %d, and the model has %d: all get adapters", tuning.lora_layers, blocks)
    linear_to_lora_layers(model, layers, parameters)
    return layers, parameters


def checkpoint_gradients(model: Any) -> None:  # noqa: ANN401 - a model of mlx_lm
    """Let each block keep its inputs only, and compute the rest again in the backward pass.

    Args:
        model: With adapters.
    """
    for kind in {type(block) for block in model.layers}:
        again = type(kind.__name__, (kind,), {"__call__": _checkpointed(kind)})
        for block in model.layers:
            if type(block) is kind:
                block.__class__ = again


def _checkpointed(kind: Any) -> Any:  # noqa: ANN401 - a class of blocks, and a function
    """The forward pass of a kind of block, which is computed again in the backward pass."""

    def call(block: Any, *given: Any, **more: Any) -> Any:  # noqa: ANN401
        """Run the block; in evaluation and generation nothing is computed again."""
        if not block.training:
            return kind.__call__(block, *given, **more)

        def inner(weights: Any, *given: Any, **more: Any) -> Any:  # noqa: ANN401
            """The block as a function of its weights too, so that they get gradients."""
            block.update(weights)
            return kind.__call__(block, *given, **more)

        return mx.checkpoint(inner)(block.trainable_parameters(), *given, **more)

    return call


def check_length(config: dict[str, Any], length: int) -> None:
    """Refuse rows that are longer than a model has positions, or warn where longer ones may work.

    Args:
        config: The model's.
        length: Tokens in a row.

    Raises:
        ConfigError: The model has learned a position each, and no more.
    """
    learned, most = config.get("n_positions"), config.get("max_position_embeddings")
    if learned is not None and length > learned:
        raise ConfigError(
            f"train_seq_length is {length}, but the model was made for {learned} positions; "
            f"write --train-seq-length {learned} or less"
        )
    if most is not None and length > most and is_first_process():
        log.warning("train_seq_length is %d, but the model was made for %d positions: it may do badly beyond",
                    length, most)  # fmt: skip
