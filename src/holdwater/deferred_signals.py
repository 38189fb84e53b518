"""Let a script's signal handlers run after a block in which what they raise would be lost.

An import takes each OSError for a file that is not there, and `torch.nn.Module.load_state_dict` collects errors as
messages: a `TimeoutError` of the script's `signal.alarm` would end there. Code of ours that does such things in a
script's process does them in this block. A handler is called when the block ends, in the order of the signals.

A mask would not do: any thread receives a signal to the process, and Python calls the handler in the main one.

Source: Python documentation, `signal`, "Execution of Python signal handlers".
"""

import signal
import threading
from types import TracebackType
from typing import Any, Self


class DeferredSignals:
    """Takes the signals that have handlers in Python, and gives them back at the end. Other threads do nothing."""

    def __init__(self) -> None:
        """Prepare."""
        self._handlers: dict[int, Any] = {}
        self._received: list[int] = []

    def __enter__(self) -> Self:
        """Take them."""
        if threading.current_thread() is threading.main_thread():
            try:
                for number in signal.valid_signals():
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
            except BaseException:  # of a handler that was not replaced yet
                self._give_back()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handlers back, and call those whose signals have come."""
        self._give_back()

    def _note(self, number: int, frame: object) -> None:
        """Take note of a signal."""
        del frame
        self._received.append(number)

    def _give_back(self) -> None:
        """Put all handlers back, whatever one of them raises, and then call them for what was received."""
        raised: BaseException | None = None
        for number, handler in self._handlers.items():
            while signal.getsignal(number) == self._note:
                try:
                    signal.signal(number, handler)
                except BaseException as error:  # noqa: BLE001 - of another one, which is in its place again
                    raised = raised or error
        for number in self._received:
            try:
                signal.raise_signal(number)
            except BaseException as error:  # noqa: BLE001 - the script's own
                raised = raised or error
        if raised is not None:
            raise raised
