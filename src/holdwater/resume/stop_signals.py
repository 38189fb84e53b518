"""SIGTERM and SIGINT while a loop runs under a supervisor: they end the run after its step."""

import signal
from typing import Any

from holdwater.observe.agent import session as sessions
from holdwater.process.restart_context import only_here, stop_received, stop_soon

USUAL: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""The signals that end the run after a step, where the script leaves them to Python: with Python's handlers."""


class StopSignals:
    """The handlers of a loop; a script's own handlers stay."""

    def __init__(self) -> None:
        self.stop: str | None = None
        """Why the run ends after this step; None if it does not."""
        self._handlers: dict[int, Any] = {}

    def take(self) -> None:
        """Let SIGTERM and SIGINT end the run after its step, unless the script has its own handlers."""

        def stop(reason: str) -> None:
            """Stop after this step."""
            self.stop = reason

        handler = only_here(stop_soon(stop, lambda: self.stop is not None))
        for number, usual in USUAL.items():
            if signal.getsignal(number) == usual:
                signal.signal(number, handler)
                self._handlers[number] = handler
        self._report()

    def give_back(self) -> None:
        """The loop has ended: signals do again what they did before it; one that came too late does so now."""
        if not self._handlers:
            return
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, USUAL[number])
        handled, self._handlers = set(self._handlers), {}
        self._report()
        late = stop_received()
        if self.stop is not None and late in handled:
            signal.raise_signal(late)

    def _report(self) -> None:
        """Report to the supervisor whether this process ends by itself when it is asked to stop."""
        session = sessions.current()
        if session is not None:
            session.channel.put("takes_stops", int(signal.SIGTERM in self._handlers))
