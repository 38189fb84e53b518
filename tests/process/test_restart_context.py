"""What signals do to a run, and which seed it draws."""

import signal

import pytest

from holdwater.config.keys import BY_NAME
from holdwater.process.restart_context import drawn_seed, stop_soon


class Stopping:
    """A run that has been asked to stop, at times that a test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.now = 100.0
        self.handle = stop_soon(self.reasons.append, lambda: bool(self.reasons), lambda: self.now)


def test_the_first_signal_stops_a_run() -> None:
    """And says which it was."""
    run = Stopping()

    run.handle(signal.SIGTERM)

    assert run.reasons == ["it received SIGTERM"]


def test_ignores_the_echo_of_a_signal() -> None:
    """One that is sent to a group comes from the supervisor once more."""
    run = Stopping()
    run.handle(signal.SIGTERM)
    run.now += 0.5

    run.handle(signal.SIGTERM)

    assert len(run.reasons) == 1


def test_a_later_signal_ends_the_run_now() -> None:
    """Somebody does not want to wait for the checkpoint."""
    run = Stopping()
    run.handle(signal.SIGINT)
    run.now += 2

    with pytest.raises(KeyboardInterrupt):
        run.handle(signal.SIGINT)


def test_signals_without_a_pause_end_the_run_too() -> None:
    """Somebody who presses Ctrl-C again and again is heard after a second."""
    run = Stopping()

    def press_again_and_again() -> None:
        """Every 0.4 seconds."""
        for _ in range(5):
            run.handle(signal.SIGINT)
            run.now += 0.4

    with pytest.raises(KeyboardInterrupt):
        press_again_and_again()

    assert run.now == pytest.approx(101.2)


def test_the_first_signal_of_a_run_that_stops_anyway_ends_it_now() -> None:
    """It stops for want of memory, say."""
    run = Stopping()
    run.reasons.append("memory ran out")

    with pytest.raises(KeyboardInterrupt):
        run.handle(signal.SIGTERM)


def test_a_drawn_seed_is_one_that_train_accepts() -> None:
    """Half of all numbers of 64 bits are larger than the largest seed, and would end `verify-resume train`."""
    drawn = {drawn_seed() for _ in range(100)}

    assert {BY_NAME["seed"].read(seed) for seed in drawn} == drawn
