"""The import path of `holdwater.oom.torch_step` in earlier versions."""

from holdwater.oom.torch_step import torch_step

__all__ = ["torch_step"]
