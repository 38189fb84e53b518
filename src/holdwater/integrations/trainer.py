"""The import path of `holdwater.frameworks.transformers.recycle` in earlier versions."""

from holdwater.frameworks.transformers.recycle import RecycleCallback, last_checkpoint

__all__ = ["RecycleCallback", "last_checkpoint"]
