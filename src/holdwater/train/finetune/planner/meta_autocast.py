"""Types of results under a CUDA device's autocast, for tensors that lie on no device.

PyTorch's own autocast does nothing to such tensors. Source of the lists: PyTorch's `ATen/autocast_mode.h`; a test
compares them. What a function that is written in Python and is not listed does inside is not seen.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

PRODUCTS = frozenset((
    "matmul", "rmatmul", "einsum", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul",
    "linalg_multi_dot", "linalg_vecdot", "mm", "mv", "linear", "prelu", "convolution", "conv1d", "conv2d",
    "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "lstm_cell", "gru_cell",
    "rnn_tanh_cell", "rnn_relu_cell", "scaled_dot_product_attention",
))  # fmt: skip
"""Are made in the lower precision."""
EXACT = frozenset((
    "pow", "rpow", "rdiv", "rtruediv", "reciprocal", "rsqrt", "exp", "expm1", "log", "log10", "log1p", "log2",
    "logsumexp", "acos", "asin", "cosh", "sinh", "tan", "erfinv", "dist", "cdist", "pdist", "renorm",
    "cosine_similarity", "frobenius_norm", "nuclear_norm", "layer_norm", "native_layer_norm", "rms_norm",
    "group_norm", "softplus", "cross_entropy", "nll_loss", "poisson_nll_loss", "kl_div", "mse_loss", "l1_loss",
    "smooth_l1_loss", "huber_loss", "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss",
    "multilabel_margin_loss", "multi_margin_loss", "soft_margin_loss", "triplet_margin_loss",
    "binary_cross_entropy_with_logits",
))  # fmt: skip
"""Are made in float32."""
WIDENED = frozenset((
    "softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod", "norm", "linalg_norm", "linalg_vector_norm",
    "linalg_matrix_norm",
))  # fmt: skip
"""Are made in float32 unless a type is given."""
ALIKE = frozenset((
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler", "index_put", "tensordot",
    "scatter_add",
))  # fmt: skip
"""Need operands of one type: the widest of them."""


class MetaAutocast(TorchFunctionMode):
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
        given = tree_leaves((args, kwargs))
        dtypes = {one.dtype for one in given if isinstance(one, Tensor)}
        if name in WIDENED and torch.bfloat16 in dtypes and not any(isinstance(one, torch.dtype) for one in given):
            return func(*args, **kwargs | {"dtype": torch.float32})
        dtype = torch.bfloat16 if name in PRODUCTS else torch.float32 if name in EXACT else None
        if name in ALIKE and torch.float32 in dtypes:
            dtype = torch.float32
        if dtype is not None and kwargs.get("out") is None:
            args, kwargs = tree_map(lambda one: _as_dtype(one, dtype), (args, kwargs))
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


def _as_dtype(one: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 - an argument
    """A tensor of the other of the two types is converted; whatever else it is stays."""
    return one.to(dtype) if isinstance(one, Tensor) and one.dtype in {torch.bfloat16, torch.float32} else one
