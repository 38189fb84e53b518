"""The import path of `holdwater.frameworks.transformers.oom` in earlier versions."""

from holdwater.frameworks.transformers.oom import RecoveringTraining

__all__ = ["RecoveringTraining"]
