"""What a process has seen between two counts of its objects, for the watcher."""

import threading
from typing import TYPE_CHECKING, Any

from holdwater.attribution.profilers import running_profiler
from holdwater.attribution.traits import loaded_libraries
from holdwater.attribution.user_code import users_modules
from holdwater.observe.agent.processes import named_processes
from holdwater.observe.agent.recompiles import recompilations

if TYPE_CHECKING:
    from holdwater.attribution.gains import Gains


def seen(gains: "Gains", from_step: int, to_step: int) -> dict[str, Any]:
    """The result of two counts, for the watcher.

    Args:
        gains: The comparison.
        from_step: The first count's.
        to_step: The second count's.
    """
    profiler = running_profiler()
    return {
        "from_step": from_step,
        "to_step": to_step,
        "gains": [gain.as_json() for gain in gains.found],
        "users_files": [module.file for module in users_modules()],
        "recompiled": recompilations(from_step),
        "libraries": loaded_libraries(),
        "mlx": gains.mlx,
        "processes": named_processes(),
        "threads": threading.active_count() - 1,
        "profiler": None if profiler is None else profiler.as_json(),
    }


def seen_at_once(gains: "Gains", from_step: int, to_step: int) -> dict[str, Any]:
    """The result of two counts without a window: the script ended before one was opened.

    Args:
        gains: The comparison.
        from_step: The first count's.
        to_step: The second count's.
    """
    reason = "the script ended before allocations could be recorded"
    return seen(gains, from_step, to_step) | {"missing": [reason]}
