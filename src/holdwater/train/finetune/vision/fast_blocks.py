"""Faster parts of the towers of Qwen while their passes run: what lies between the products takes one kernel each.

Norms, gated networks and the rotation of queries and keys are replaced in the blocks of Transformers' own code.
Inner widths are padded with zeros: that of Qwen2.5-VL, 3,420, is no multiple of 8, and products with it
take three times as long on an H200 (0.46 and 0.52 ms against 0.15 ms for 12,512 patches).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.train.finetune.fused.kernels import kernels_for
from holdwater.train.flat import point_at

ALIGNMENT = 64
"""Inner widths are padded to multiples of it."""
ROTATION = "apply_rotary_pos_emb_vision"
"""What Transformers calls the rotation in the modules of the families."""


class FastBlocks:
    """Replaces parts of a tower's blocks. The weights of its gated networks are laid out anew, with padding."""

    def __init__(self, tower: nn.Module, device: torch.device | str) -> None:
        """Lay weights out; the modules of the tower keep views of theirs.

        Args:
            tower: Frozen. Where it is still on another device, it is moved there afterwards: weights that are
                replaced on their device would leave holes between those that stay.
            device: Where the tower runs.
        """
        self._forwards: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
        for module in tower.modules():
            if type(module).__name__.endswith("RMSNorm"):
                self._forwards.append((module, _FastNorm(module)))
            elif _is_gated(module):
                self._forwards.append((module, _FastNetwork(module, device)))
        self._code = sys.modules[type(tower).__module__]

    def tensors(self) -> list[Tensor]:
        """Weights with padding."""
        return [
            one for _, forward in self._forwards if isinstance(forward, _FastNetwork) for one in forward.tensors
        ]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the parts until this is left."""
        with ExitStack() as stack:
            for module, forward in self._forwards:
                module.forward = forward
                stack.callback(delattr, module, "forward")
            own = getattr(self._code, ROTATION, None)
            if own is not None:
                setattr(self._code, ROTATION, _rotating(own))
                stack.callback(setattr, self._code, ROTATION, own)
            yield


class _FastNorm:
    """A norm by root mean square."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - of Transformers
        self._weight, self._epsilon = module.weight, float(module.variance_epsilon)

    def __call__(self, rows: Tensor) -> Tensor:
        """Shape (rows, width)."""
        rows = rows.contiguous()
        normed, scales = torch.empty_like(rows), rows.new_empty(len(rows), dtype=torch.float32)
        kernels_for(rows).norm(rows, None, self._weight, self._epsilon, rows, normed, scales)
        return normed


class _FastNetwork:
    """A network with gates, whose inner width is padded."""

    def __init__(self, module: Any, device: torch.device | str) -> None:  # noqa: ANN401 - of Transformers
        first, last = module.gate_proj, module.down_proj
        inner = len(first.weight)
        self._padded = padded = -(-inner // ALIGNMENT) * ALIGNMENT
        with torch.no_grad():
            self._pairs, self._bias = (
                torch.cat([_longer(getattr(module.gate_proj, name), padded),
                           _longer(getattr(module.up_proj, name), padded)]).to(device)
                for name in ("weight", "bias")
            )  # fmt: skip
            self._last = last.weight.new_zeros(len(last.weight), padded, device=device)
            self._last[:, :inner].copy_(last.weight)
        self._last_bias = last.bias
        self.tensors = [self._pairs, self._bias, self._last]
        point_at(first.weight, self._pairs[:inner])
        point_at(module.up_proj.weight, self._pairs[padded : padded + inner])
        point_at(last.weight, self._last[:, :inner])

    def __call__(self, rows: Tensor) -> Tensor:
        """Shape (rows, width)."""
        pairs = nn.functional.linear(rows, self._pairs, self._bias)
        inner = pairs.new_empty(len(pairs), self._padded)
        kernels_for(rows).gate(pairs, inner)
        return nn.functional.linear(inner, self._last, self._last_bias)


def _is_gated(module: Any) -> bool:  # noqa: ANN401 - of Transformers
    """Whether a module is a network of three products with biases, whose gates are opened by SiLU."""
    names = ("gate_proj", "up_proj", "down_proj")
    return (
        all(isinstance(getattr(module, name, None), nn.Linear) for name in names)
        and all(getattr(module, name).bias is not None for name in names)
        and type(getattr(module, "act_fn", None)).__name__ in {"SiLU", "SiLUActivation"}
    )


def _longer(tensor: Tensor, length: int) -> Tensor:
    """A tensor with zeros behind it, along its first dimension."""
    return torch.cat([tensor, tensor.new_zeros(length - len(tensor), *tensor.shape[1:])])


def _rotating(own: Callable[..., Any]) -> Callable[..., Any]:
    """The rotation, in one kernel on a CUDA device."""

    def rotate(queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
        """As Transformers' own."""
        if queries.is_meta:
            return queries, keys
        if not queries.is_cuda or queries.stride(-1) != 1 or cosines.stride(-1) != 1:
            made: tuple[Tensor, Tensor] = own(queries, keys, cosines, sines)
            return made
        from holdwater.train.finetune.fused import tower_kernels  # noqa: PLC0415 - Triton is with CUDA only

        return tower_kernels.rotate(queries, keys, cosines, sines)

    return rotate
