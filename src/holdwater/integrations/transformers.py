"""The import path of `holdwater.frameworks.transformers.memory` in earlier versions."""

from holdwater.frameworks.transformers.memory import MemoryCallback

__all__ = ["MemoryCallback"]
