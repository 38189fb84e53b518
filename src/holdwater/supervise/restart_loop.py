"""The restart loop, for scripts and for our own training: start a process, follow it, start the next one.

What differs between the two is in `RunHooks`.
"""

import logging
from typing import Any

from holdwater.policy.restarts import Answer
from holdwater.process.channel import Channel
from holdwater.process.restart_context import reason_file
from holdwater.process.spawn import ForkedProcess
from holdwater.supervise.supervisor import Supervisor

log = logging.getLogger("holdwater")

EXPECTED = frozenset({"done", "asked to stop", "not resumable"})
"""Causes of the end of a run that are no error of the process."""
PAUSE = 0.25
"""Seconds between two looks at a process."""


class RunHooks:
    """What one kind of run adds to the loop; each method may be overridden."""

    what = "process"
    """What is started, for messages."""

    def begin(self, process: ForkedProcess) -> None:
        """Begin to follow a process that has just been started; the one before it is finished.

        Args:
            process: The new one.
        """

    def pause(self) -> float:
        """Seconds until the next look at the process."""
        return PAUSE

    def look(self) -> None:
        """Look at the process; called again and again while it runs."""

    def amend(self, answer: Answer) -> Answer:
        """What really follows a process that has ended.

        Args:
            answer: What follows as far as the supervisor knows.
        """
        return answer

    def note_end(self, *, recycled: bool) -> None:
        """Take note of how a process ended, before the next one is started.

        Args:
            recycled: Whether it was replaced; otherwise it has died.
        """

    def finish(self) -> None:
        """Complete what is known of a process that has ended; if another one follows, it runs already."""


def keep_going(supervisor: Supervisor, hooks: RunHooks) -> int:
    """Start one process after another until none is to follow.

    Args:
        supervisor: Starts them, and decides what follows each.
        hooks: What this kind of run adds.

    Returns:
        The exit code of the run; negative for a signal that ended the last process.
    """
    try:
        process = supervisor.start()
        while True:
            hooks.begin(process)
            while process.wait(hooks.pause()):
                supervisor.turn()
                hooks.look()
            answer = hooks.amend(supervisor.answer())
            following = _start_next(supervisor, hooks, answer)
            hooks.finish()
            if following is None:
                return answer.exit_code
            process = following
    finally:
        supervisor.close()


def _start_next(supervisor: Supervisor, hooks: RunHooks, answer: Answer) -> ForkedProcess | None:
    """Start the process that follows one that has ended; None where none is to follow."""
    if not answer.again:
        if answer.cause not in EXPECTED:
            log.error("the %s is not started again: %s", hooks.what, answer.reason)
        return None
    recycled = answer.cause == "recycled"
    hooks.note_end(recycled=recycled)
    if not recycled:
        log.warning("the %s is started again: %s", hooks.what, answer.reason)
    return supervisor.start()


def recycled_end(channel: Channel, *, left_at: str) -> dict[str, Any]:
    """How a process that was replaced ended: `step`, `reason`, `in_use` (bytes), `at` (seconds on the clock).

    Args:
        channel: Its channel.
        left_at: The channel's field that says when the last step ended.
    """
    try:
        reason = reason_file(channel.path).read_text(encoding="utf-8")
    except OSError:  # the process could not write it
        reason = "not known"
    return {
        "step": channel.get("steps"),
        "reason": reason,
        "in_use": channel.get("in_use"),
        "at": channel.get_seconds(left_at),
    }
