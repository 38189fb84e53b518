"""Count the steps of a process that may be replaced, and record for its supervisor when they begin and end."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.observe.agent.session import Session


def replaceable_step(session: "Session", in_use: "Callable[[], int]") -> None:
    """Count a step, and record when it ended; after the first one, record the memory in use too.

    Args:
        session: Of this process.
        in_use: Reads the bytes that count against the budget.
    """
    now, channel = time.monotonic(), session.channel
    channel.put_seconds("left_at", now)
    if not channel.get_seconds("went_on_at"):
        channel.put("in_use", in_use())
        channel.put_seconds("went_on_at", now)
    session.step("holdwater.step")


def go_on_from(session: "Session", step: int) -> None:
    """Record that the script continues from a step that an earlier process has ended.

    Args:
        session: Of this process.
        step: The last one that was ended.
    """
    session.steps = step
    session.source = session.channel.source = "holdwater.step"
    session.channel.put("steps", step)
    session.channel.put("goes_on_from", step)
