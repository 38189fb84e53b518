"""What a signal handler has raised is told from other exceptions."""

import functools
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from holdwater.signal_errors import is_the_scripts, not_the_scripts, suppressed


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The handler of before is back after a test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def ring(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    raise TimeoutError


def ring_once(number: int, frame: FrameType | None) -> None:
    """Handle a signal, and put the default handler in the place of this one."""
    signal.signal(number, signal.SIG_DFL)
    raise TimeoutError


def ring_anyhow(*_: Any) -> None:
    """Handle a signal, whatever the arguments are, and only once."""
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    raise TimeoutError


def ring_of_another_frame(number: int, frame: FrameType | None) -> None:
    """Handle a signal, and forget what it interrupts."""
    del frame
    raise TimeoutError


class Ringing:
    """An object that handles signals."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle one."""
        raise TimeoutError

    def ring(self, number: int, frame: FrameType | None) -> None:
        """Handle one."""
        signal.signal(number, signal.SIG_DFL)
        raise TimeoutError


HANDLERS = {
    "a function": ring,
    "one that is used once": ring_once,
    "one of any arguments": ring_anyhow,
    "one that forgets its frame": ring_of_another_frame,
    "an object": Ringing(),
    "a method": Ringing().ring,
    "a partial function": functools.partial(ring),
}


def catch() -> str:
    """Receive a signal where an OSError is caught."""
    try:
        signal.raise_signal(signal.SIGUSR1)
    except not_the_scripts(OSError):
        return "caught"
    return "nothing"


def suppress() -> str:
    """Receive a signal where an OSError is suppressed."""
    with suppressed(OSError):
        signal.raise_signal(signal.SIGUSR1)
    return "suppressed"


class TestHandlers:
    """What they raise passes."""

    @pytest.mark.parametrize("function", [catch, suppress])
    @pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
    def test_raise_through(self, handler: Any, function: Callable[[], str]) -> None:
        """However a handler is written."""
        signal.signal(signal.SIGUSR1, handler)

        with pytest.raises(TimeoutError):
            function()

    def test_raise_within_a_call_of_ours(self) -> None:
        """Several frames lie between."""
        signal.signal(signal.SIGUSR1, ring_once)

        with pytest.raises(TimeoutError), suppressed(TimeoutError):
            list(map(signal.raise_signal, [signal.SIGUSR1]))


class TestOthers:
    """They are caught as usual."""

    def test_an_error_of_our_own(self) -> None:
        """In this function, and in one that it calls; a handler is set meanwhile."""
        signal.signal(signal.SIGUSR1, ring)
        with suppressed(OSError):
            raise TimeoutError
        with suppressed(OSError):
            open("/nowhere/at/all", encoding="utf-8").close()  # noqa: PTH123 - the shortest that fails
        with suppressed(OSError, ValueError):
            int("word")

    def test_one_of_another_class(self) -> None:
        """It passes, as ever."""
        with pytest.raises(ValueError, match="word"), suppressed(OSError):
            int("word")

    def test_in_a_function_that_is_given_the_callers_frame(self) -> None:
        """Without a signal's number before it."""

        def look(frame: FrameType) -> None:
            """Fail."""
            raise OSError

        with suppressed(OSError):
            look(__import__("sys")._getframe())

    def test_nothing_at_all(self) -> None:
        """No exception is nobody's."""
        assert not is_the_scripts(None)
        with suppressed(OSError):
            pass
