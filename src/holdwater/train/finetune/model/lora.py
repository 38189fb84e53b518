"""Low-rank adapters for frozen linear layers, in PEFT's names and file format.

Source: Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from holdwater.errors import ConfigError, RunFolderError
from holdwater.process.restart_context import is_first_process
from holdwater.train.settings import TuneSettings

log = logging.getLogger("holdwater")

PREFIX = "base_model.model."
"""What PEFT puts before the name of each layer."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEADS = ("lm_head", "embed_out", "output")
"""Output heads are not adapted: the loss needs them frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What adapters a model gets."""

    rank: int = 16
    alpha: float | None = None
    """The adapters' output is scaled by alpha / rank; None takes twice the rank."""
    dropout: float = 0.0
    targets: Sequence[str] = ()
    """The last part of the names of the layers that are adapted; empty adapts all linear layers but the head."""
    layers: int | None = None
    """How many of the last layers are adapted; None adapts all."""
    pattern: str = ""
    """Matches the whole names of the layers that are adapted, as PEFT understands it; `targets` and `layers` are
    in it already. Empty adapts by these."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora_rank is {self.rank}, but an adapter has 1 or more; write 16, say")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora_dropout is {self.dropout:g}, but it is a share; write 0 to 0.99")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"lora_layers is {self.layers}, but it counts layers; write 1 or more")

    @classmethod
    def of(cls, tuning: TuneSettings) -> "LoraConfig":
        """The adapters that the settings of a run ask for."""
        targets = tuning.lora_targets
        return cls(
            rank=tuning.lora_rank,
            alpha=tuning.lora_alpha,
            dropout=tuning.lora_dropout,
            targets=[] if targets is None else [one.strip() for one in targets.split(",")],
            layers=tuning.lora_layers,
        )

    @property
    def scaling(self) -> float:
        """What the adapters' output is multiplied by."""
        return (2 * self.rank if self.alpha is None else self.alpha) / self.rank


class LoraLinear(nn.Module):
    """A frozen linear layer, plus the product of two small matrices that are trained."""

    def __init__(self, base: nn.Module, config: LoraConfig) -> None:
        """Begin as the base layer: B is zero.

        Args:
            base: The layer; its own weights get no gradient.
            config: Rank, scaling and dropout.
        """
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        weight: Tensor = base.weight  # type: ignore[assignment] # every linear layer has one
        self.transposed = is_transposed(base)
        inner, outer = weight.shape if self.transposed else weight.shape[::-1]
        self.lora_A = nn.Parameter(torch.empty(config.rank, inner, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(outer, config.rank, device=weight.device))
        if not weight.is_meta:  # there it would only take time
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling, self.dropout = config.scaling, config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output and the adapter's. Shapes: (..., inner) in, (..., outer) out."""
        out: Tensor = self.base(x)
        dropped = functional.dropout(x, self.dropout, training=self.training)
        small = functional.linear(dropped, self.lora_A.to(x.dtype))
        return out + functional.linear(small, self.lora_B.to(x.dtype)) * self.scaling

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Add the adapter to the base layer's weight, and return that layer."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        product = (self.lora_B @ self.lora_A) * self.scaling
        weight += (product.T if self.transposed else product).to(weight.dtype)
        return self.base


def is_adapted(model: nn.Module) -> bool:
    """Whether a model has adapters; else all its weights are trained."""
    return any(isinstance(one, LoraLinear) for one in model.modules())


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer keeps its weight as (inner, outer), as GPT-2's do."""
    return type(module).__name__ == "Conv1D"


def add_adapters(model: nn.Module, config: LoraConfig) -> list[str]:
    """Freeze a model, and add adapters to its linear layers.

    Args:
        model: Its layers are replaced in place.
        config: Which, and how.

    Returns:
        The names of the layers that were adapted.

    Raises:
        ConfigError: No layer has such a name.
    """
    model.requires_grad_(requires_grad=False)
    names = [name for name, module in model.named_modules() if is_linear(module)]
    chosen = [name for name in names if _is_target(name, config)]
    if config.layers is not None and not config.pattern:
        last = sorted({number for name in chosen if (number := layer_number(name)) is not None})
        real = not any(weight.is_meta for weight in model.parameters())  # a plan does not say it too
        if config.layers > len(last) and real and is_first_process():
            log.info(
                "lora_layers is %d, and %d layers have such weights: all of these get adapters",
                config.layers,
                len(last),
            )
        last = last[-config.layers :]
        chosen = [name for name in chosen if layer_number(name) in last]
    known = {name.rpartition(".")[2] for name in names}
    if not chosen or not known.issuperset(config.targets):
        wrong = ", ".join(one for one in config.targets if one not in known) or "all linear ones"
        raise ConfigError(
            f"lora_targets has {wrong}, but the linear layers of this model are "
            f"{', '.join(sorted(known)) or 'none'}; name some of these"
        )
    for name in chosen:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, child, LoraLinear(model.get_submodule(name), config))
    return chosen


def is_linear(module: nn.Module) -> bool:
    """Whether a layer is a matrix product, however it is stored, and may be replaced by another one.

    The output layer of `nn.MultiheadAttention` may not: its weights are read, and it is never called.
    """
    if type(module) is nn.modules.linear.NonDynamicallyQuantizableLinear:
        return False
    return isinstance(module, nn.Linear) or type(module).__name__ in {"Conv1D", "Linear4bit", "Linear8bitLt"}


def _is_target(name: str, config: LoraConfig) -> bool:
    """Whether a layer is to be adapted, whatever its number."""
    if config.pattern:
        return re.fullmatch(config.pattern, name) is not None
    last = name.rpartition(".")[2]
    return last in config.targets if config.targets else last not in HEADS


def layer_number(name: str) -> int | None:
    """The number of the layer that a module's name lies in; None outside of the layers.

    Args:
        name: Such as `model.layers.12.mlp.up_proj`.
    """
    found = re.search(r"\.(\d+)\.", name)
    return None if found is None else int(found[1])


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapted layers of a model, by name."""
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the adapters' matrices in the host's memory, by PEFT's names: a checkpoint takes none of a device.

    Args:
        model: With adapters.
    """
    return {
        f"{PREFIX}{name}.lora_{letter}.weight": getattr(module, f"lora_{letter}")
        .detach()
        .to("cpu", copy=True)
        .contiguous()
        for name, module in adapters(model)
        for letter in "AB"
    }


def adapter_config(model: nn.Module, config: LoraConfig, *, base: str) -> dict[str, object]:
    """What PEFT wants to know of the adapters.

    Args:
        model: With adapters.
        config: What `add_adapters` was given.
        base: The name or folder of the base model, for the record.
    """
    found = dict(adapters(model))
    numbers = sorted({number for name in found if (number := layer_number(name)) is not None})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.scaling * config.rank,
        "lora_dropout": config.dropout,
        "bias": "none",
        "fan_in_fan_out": any(module.transposed for module in found.values()),
        "target_modules": config.pattern or sorted({name.rpartition(".")[2] for name in found}),
        "layers_to_transform": None if config.layers is None or config.pattern else numbers,
        "inference_mode": True,
    }


def save_adapters(model: nn.Module, folder: Path, config: LoraConfig, *, base: str) -> None:
    """Write the adapters as PEFT does.

    Args:
        model: With adapters.
        folder: Is made.
        config: What `add_adapters` was given.
        base: The name or folder of the base model, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter_tensors(model), folder / WEIGHTS)
    text = json.dumps(adapter_config(model, config, base=base), indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def load_adapters(model: nn.Module, folder: Path) -> None:
    """Read adapters that this module or PEFT has written, into a model that has such adapters.

    Args:
        model: With adapters of the same rank at the same layers.
        folder: Holds `adapter_model.safetensors`.

    Raises:
        RunFolderError: The adapters belong to other layers, or have another rank.
    """
    tensors = load_file(folder / WEIGHTS)
    for name, module in adapters(model):
        for letter in "AB":
            key, own = f"{PREFIX}{name}.lora_{letter}.weight", getattr(module, f"lora_{letter}")
            if key not in tensors or tensors[key].shape != own.shape:
                has = "nothing" if key not in tensors else f"one of shape {tuple(tensors[key].shape)}"
                raise RunFolderError(
                    f"{folder} has {has} for {key}, but this model needs shape {tuple(own.shape)}; "
                    "use the same model, --lora-rank and targets, or another folder"
                )
            own.copy_(tensors.pop(key))
    if tensors:
        raise RunFolderError(
            f"{folder} has adapters for {min(tensors)}, which this model does not adapt; use the same targets"
        )


def merge_adapters(model: nn.Module) -> None:
    """Merge all adapters into the weights of their layers, and take them out of the model."""
    for name, module in list(adapters(model)):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.merged())
