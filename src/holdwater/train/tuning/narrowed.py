"""Types of results under a CUDA device's autocast, for tensors that lie on no device.

PyTorch's own autocast does nothing to such tensors. Source of the lists: PyTorch's "Automatic Mixed Precision
package", on operations of CUDA devices that autocast to a lower precision and to float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

PRODUCTS = frozenset([
    "matmul",
    "rmatmul",
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bmm",
    "chain_matmul",
    "multi_dot",
    "mm",
    "mv",
    "linear",
    "prelu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
])
"""Are made in the lower precision."""
EXACT = frozenset([
    "pow",
    "rpow",
    "rdiv",
    "rtruediv",
    "reciprocal",
    "rsqrt",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "logsumexp",
    "cumprod",
    "cumsum",
    "prod",
    "acos",
    "asin",
    "cosh",
    "sinh",
    "tan",
    "norm",
    "dist",
    "cosine_similarity",
    "layer_norm",
    "group_norm",
    "softplus",
    "cross_entropy",
    "nll_loss",
    "kl_div",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
])
"""Are made in float32."""
WIDENED = frozenset({"softmax", "log_softmax", "sum"})
"""Give float32 without a copy of what they are given."""


class Narrowed(TorchFunctionMode):
    """Lets products be in bfloat16 and what needs precision in float32, as autocast without its cache does."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - whatever torch has
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function on what autocast would give it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        name = name.strip("_") if name.startswith("__") else name
        if name in WIDENED and _is_narrow(args) and kwargs.get("dtype") is None:
            return func(*args, **kwargs | {"dtype": torch.float32})
        kind = torch.bfloat16 if name in PRODUCTS else torch.float32 if name in EXACT else None
        if kind is not None and kwargs.get("out") is None:
            args, kwargs = tree_map(lambda one: _in_kind(one, kind), (args, kwargs))
        return func(*args, **kwargs)


def leave_positions(model: nn.Module) -> None:
    """Leave rotary positions out of it: the code of Transformers turns autocast off for them.

    Args:
        model: The rotary modules of it are changed in place.
    """
    for module in model.modules():
        if "rotary" in type(module).__name__.lower():
            module.forward = partial(_left_out, module.forward)


def _left_out(forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    """Call a function without any mode."""
    with torch._C.DisableTorchFunction():  # noqa: SLF001 - its only name
        return forward(*args, **kwargs)


def _is_narrow(args: tuple[Any, ...]) -> bool:
    """Whether a function is given bfloat16."""
    return bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.bfloat16


def _in_kind(one: Any, kind: torch.dtype) -> Any:  # noqa: ANN401 - an argument
    """A tensor of the other of the two types is converted; whatever else it is stays."""
    return one.to(kind) if isinstance(one, Tensor) and one.dtype in {torch.bfloat16, torch.float32} else one
