"""When processes are to be replaced, as the configuration says it."""

from typing import TYPE_CHECKING, Any

from holdwater.policy.replacement import ReplacementConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdwater.config.sources import Config


def replacement_config(values: "Mapping[str, Any] | Config") -> ReplacementConfig:
    """Take from a configuration when processes are to be replaced.

    Args:
        values: By the name of the key.
    """
    return ReplacementConfig(
        reload_interval=values["reload_interval_steps"], reload_threshold=values["reload_memory_threshold_gb"]
    )
