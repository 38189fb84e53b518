"""Handlers run after a block in which what they raise would be lost."""

import contextlib
import importlib.machinery
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType

import pytest
import torch

from holdwater.deferred_signals import DeferredSignals
from holdwater.resume.resumable import Resumption
from holdwater.resume.stored_states import restore, save
from holdwater.signal_errors import is_the_scripts
from holdwater.store.checkpoints import CheckpointFolder

CALLED: list[int] = []


def ring(number: int, frame: FrameType | None) -> None:
    """Handle a signal, as the idiom for a limit of time does."""
    CALLED.append(number)
    raise TimeoutError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Two signals have handlers that raise; those of before are back after a test."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, ring) for number in numbers]
    CALLED.clear()
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_handler_is_called_when_the_block_ends() -> None:
    """What it raises comes out of the block, and is the script's."""
    with pytest.raises(TimeoutError) as found, DeferredSignals(), contextlib.suppress(Exception):
        signal.raise_signal(signal.SIGUSR1)

    assert CALLED == [signal.SIGUSR1]
    assert is_the_scripts(found.value)
    assert signal.getsignal(signal.SIGUSR1) is ring


def test_each_handler_is_called_in_the_order_of_the_signals() -> None:
    """Though the first raises; that is what comes out."""
    numbers = (signal.SIGUSR2, signal.SIGUSR1)
    with pytest.raises(TimeoutError), DeferredSignals(), contextlib.suppress(Exception):
        list(map(signal.raise_signal, numbers))

    assert CALLED == [signal.SIGUSR2, signal.SIGUSR1]
    assert [signal.getsignal(number) for number in CALLED] == [ring, ring]


def test_a_handler_that_is_written_in_c_too() -> None:
    """As Python's own for an interrupt."""
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)

    with pytest.raises(KeyboardInterrupt), DeferredSignals(), contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGUSR1)

    assert before is ring


def test_nothing_is_changed_without_a_signal_or_in_another_thread() -> None:
    """Only the main thread can set handlers."""
    inside = []

    def enter() -> None:
        """Enter the block."""
        with DeferredSignals():
            inside.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    with DeferredSignals():
        inside.append(signal.getsignal(signal.SIGUSR1))

    assert inside[0] is ring
    assert inside[1] is not ring
    assert signal.getsignal(signal.SIGUSR1) is ring


class Interrupted:
    """A finder of modules that a signal interrupts, and that takes each OSError for a file that is not there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing."""
        del path, target
        if name == "holdwater.resume.state_codec":
            with contextlib.suppress(OSError):
                signal.raise_signal(signal.SIGUSR1)
        return None


def test_what_is_raised_at_a_first_import_reaches_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an object is registered."""
    monkeypatch.delitem(sys.modules, "holdwater.resume.state_codec")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])

    with pytest.raises(TimeoutError):
        Resumption(None).register("model", torch.nn.Linear(1, 1))


class Swallowing(torch.nn.Linear):
    """A layer that a signal interrupts where torch collects each error of a parameter."""

    def _load_from_state_dict(self, *arguments: object) -> None:
        with contextlib.suppress(Exception):
            signal.raise_signal(signal.SIGUSR1)
        super()._load_from_state_dict(*arguments)


def test_what_is_raised_while_a_state_is_restored_reaches_the_script(tmp_path: Path) -> None:
    """And the state is whole."""
    layer = Swallowing(1, 1)
    save({"layer": layer}, CheckpointFolder(tmp_path, keep=1), 1, inputs={}, seed=0)
    expected = layer.weight.item()
    torch.nn.init.zeros_(layer.weight)
    newest = CheckpointFolder(tmp_path, keep=1).newest(print)

    assert newest is not None
    with pytest.raises(TimeoutError):
        restore({"layer": layer}, newest)
    assert layer.weight.item() == expected
