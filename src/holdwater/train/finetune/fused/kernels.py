"""The kernels for a device: Triton's on CUDA, plain PyTorch elsewhere."""

from types import ModuleType

from torch import Tensor

from holdwater.train.finetune.fused import plain_kernels


def kernels_for(tensor: Tensor) -> ModuleType:
    """The kernels for the device of a tensor."""
    if not tensor.is_cuda:
        return plain_kernels
    from holdwater.train.finetune.fused import triton_kernels  # noqa: PLC0415 - Triton is there with CUDA only

    return triton_kernels
