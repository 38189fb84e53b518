"""Which functions torch.compile and MLX have compiled again, and what had changed.

Source: PyTorch documentation, "Recompilation": a compiled graph is guarded by what it was compiled for.
"""

import re
import sys
from typing import Any

from holdwater.observe.agent.mlx_traces import traced_again

MOST = 4
"""Most functions that are reported."""
_REASON = re.compile(r"^(?:\d+/\d+: )?(?P<guard>.*?)(?:\s+#.*)?$")


def recompilations(since: int = 0) -> list[dict[str, Any]]:
    """Return the functions that were recompiled, those with the most compilations first.

    Args:
        since: The step after which a compilation of MLX counts as `lately`.

    Returns:
        For each its `function`, `file`, `line`, how `often` it was recompiled (of the newest compilations that
        torch remembers), and the `guard` that failed the last time; for MLX also how often `lately`. Empty if
        there were none, or they are not reported.
    """
    rows = [*_by_torch(), *traced_again(since)]
    return sorted(rows, key=lambda row: -int(row["often"]))[:MOST]


def _by_torch() -> list[dict[str, Any]]:
    """What torch.compile has recompiled."""
    module = sys.modules.get("torch._dynamo.utils")
    metrics = getattr(module, "get_compilation_metrics", None)
    if metrics is None:
        return []
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for metric in metrics():
        reason = getattr(metric, "recompile_reason", None)
        if not reason:
            continue
        place = (str(metric.co_name), str(metric.co_filename), int(metric.co_firstlineno or 0))
        row = found.setdefault(place, {"function": place[0], "file": place[1], "line": place[2], "often": 0})
        row["often"] += 1
        row["guard"] = _guard(str(reason))
    return list(found.values())


def _guard(reason: str) -> str:
    """The guard alone, of a reason such as `0/1: n == 3   # def f(x, n): ...`."""
    match = _REASON.match(reason.strip().splitlines()[0].strip())
    return match["guard"].strip() if match is not None else reason.strip()
