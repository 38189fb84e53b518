"""Attention of a vision tower over pictures of any lengths that lie one after another in tensors of fixed shapes.

Transformers hands the borders of pictures to attention functions whose names contain "flash", and cuts the tensors
at them for all others, which waits for the device. The function here takes borders as a tensor: on a CUDA device
by a kernel of ours, or PyTorch's flash kernel for variable lengths; elsewhere by a mask made of them.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

NAME = "holdwater_flash_varlen"
"""Under which Transformers knows the function."""


@contextmanager
def attending_within_borders(config: Any) -> Iterator[None]:  # noqa: ANN401 - of Transformers
    """Let a vision tower use the function.

    Args:
        config: Of the tower; it is as before afterwards.
    """
    importlib.import_module("transformers").AttentionInterface.register(NAME, _attend)
    before = config._attn_implementation  # noqa: SLF001 - there is no public name
    config._attn_implementation = NAME  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001


def _attend(  # noqa: PLR0913 - what Transformers calls it with
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float,
    **options: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """As Transformers' attention functions.

    Args:
        module: Not needed.
        query: Shape (1, heads, places, width); so are key and value.
        key: As query.
        value: As query.
        attention_mask: None.
        cu_seq_lens_q: Where segments begin, and the end of the last one. Shape (segments + 1,), int32.
        max_length_q: Places of the longest segment, or more.
        scaling: Of products of queries and keys.
        options: Not needed: the borders of keys are those of queries, and nothing is dropped.

    Returns:
        Shape (1, places, heads, width), and no weights.
    """
    del module, attention_mask, options
    parts = [one[0].transpose(0, 1) for one in (query, key, value)]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from holdwater.train.finetune.fused import segment_attention_kernels  # noqa: PLC0415 - Triton is with CUDA

        if query.shape[3] in segment_attention_kernels.WIDTHS:
            segments = cu_seq_lens_q, int(max_length_q)
            return segment_attention_kernels.attend((parts[0], parts[1], parts[2]), segments, scaling)[None], None
        borders = cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q
        plain = {"dropout_p": 0.0, "is_causal": False, "return_debug_mask": False, "scale": scaling}
        flash = torch.ops.aten._flash_attention_forward  # noqa: SLF001 - `varlen_attn` is newer than PyTorch 2.9
        return flash(*parts, *borders, **plain)[0][None], None
    if query.is_meta:  # a trace counts what a device takes
        hidden = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return hidden.transpose(1, 2), None
    places = torch.arange(query.shape[2], dtype=cu_seq_lens_q.dtype, device=query.device)
    number = torch.searchsorted(cu_seq_lens_q[1:].contiguous(), places, right=True)
    mask = number[:, None] == number[None, :]
    hidden = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return hidden.transpose(1, 2), None
