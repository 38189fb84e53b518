"""Keep what fails in a hook of ours from the script in which it is installed.

What the script raises while a hook runs is the script's own: an interrupt, and what a signal handler raises.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from holdwater.observe.agent.endings import say
from holdwater.signal_errors import not_the_scripts, suppressed

Words = ParamSpec("Words")
Result = TypeVar("Result")


def harmless(
    hook: Callable[Words, Result], failed: Callable[[Exception], None] | None = None
) -> Callable[Words, Result | None]:
    """A hook whose failure is reported once, and does not reach the script; it returns None then.

    Args:
        hook: Calls none of the script's code.
        failed: Called with the error, instead of the report.
    """
    said: list[str] = []

    @functools.wraps(hook)
    def call(*words: Words.args, **named: Words.kwargs) -> Result | None:
        """Call the hook."""
        try:
            return hook(*words, **named)
        except not_the_scripts(Exception) as error:
            with suppressed(Exception):  # an error whose text cannot be made
                if failed is not None:
                    failed(error)
                elif not said:
                    said.append(hook.__name__)
                    say(f"part of this run is not observed ({hook.__name__}): {error!r}")
            return None

    return call
