"""The kernels for a device: Triton's on CUDA, plain PyTorch elsewhere."""

from types import ModuleType

from torch import Tensor

from holdwater.train.finetune.fused import meta_kernels, plain_kernels


def kernels_for(tensor: Tensor) -> ModuleType:
    """The kernels for the device of a tensor; on the meta device they ask for nothing, as on CUDA."""
    if tensor.is_meta:
        return meta_kernels
    if not tensor.is_cuda:
        return plain_kernels
    from holdwater.train.finetune.fused import triton_kernels  # noqa: PLC0415 - Triton is there with CUDA only

    return triton_kernels
