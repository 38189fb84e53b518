"""Actions: measured, and harmless to the run when they fail."""

import ctypes
import gc
import sys
import weakref
from types import ModuleType, SimpleNamespace

import pytest

from holdwater.actions.levers import Levers
from holdwater.actions.limits import LimitChange, set_framework_limits
from holdwater.actions.perform import perform
from holdwater.budget import Budget
from holdwater.policy.decision import ActionName, Decision
from holdwater.probes.host import Resident
from holdwater.testing import ManualClock
from holdwater.units import Bytes, Step


def decide(action: ActionName) -> Decision:
    """A decision for an action."""
    return Decision(Step(7), action, "why")


class TestPerform:
    """Carries out one decision."""

    def test_measures_what_was_freed_and_how_long_it_took(self) -> None:
        """Bytes before less bytes after; seconds on the clock that was handed in."""
        readings = iter([1000, 400])
        clock = ManualClock()

        def checkpoint() -> None:
            clock.advance(2.5)

        outcome = perform(
            decide("stop"), Levers(checkpoint=checkpoint), measure=lambda: next(readings), elapsed=clock.elapsed
        )

        assert (outcome.freed_bytes, outcome.seconds, outcome.error) == (600, 2.5, None)

    def test_collects_what_only_cycles_keep_alive(self) -> None:
        """A cycle is gone after `collect`, and not before."""

        class Node:
            """Something that can refer to itself."""

            itself: "Node"

        node = Node()
        node.itself = node
        ghost = weakref.ref(node)
        gc.disable()
        try:
            del node
            assert ghost() is not None
            perform(decide("collect"), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)
        finally:
            gc.enable()

        assert ghost() is None

    @pytest.mark.parametrize(
        ("action", "called"), [("synchronise", "synchronize"), ("clear_caches", "empty_cache")]
    )
    @pytest.mark.parametrize("used", [False, True])
    def test_touches_no_framework_that_is_not_used(
        self, action: ActionName, called: str, used: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A device that was never started is not started for it; one that is in use is waited for, and emptied."""
        calls: list[str] = []
        torch, cuda = ModuleType("torch"), SimpleNamespace(is_available=lambda: True, is_initialized=lambda: used)
        for name in ("synchronize", "empty_cache"):
            setattr(cuda, name, lambda name=name: calls.append(name))
        vars(torch).update(cuda=cuda, backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)))
        monkeypatch.setitem(sys.modules, "torch", torch)

        outcome = perform(decide(action), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert outcome.error is None
        assert calls == ([called] if used else [])

    def test_trims_the_heap(self) -> None:
        """Glibc gives back pages in the middle of the heap that only a trim returns."""
        probe = Resident()
        blocks = [bytearray(100_000) for _ in range(500)]
        keep = blocks[::50]
        blocks.clear()

        outcome = perform(decide("trim"), Levers(), measure=probe.read, elapsed=ManualClock().elapsed)

        assert len(keep) == 10
        if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"):
            assert "malloc_trim" in str(outcome.error)
            return
        assert outcome.freed_bytes > 10_000_000
        probe.close()

    def test_a_stop_without_a_checkpoint_is_refused(self) -> None:
        """A run is never ended without a way to go on; the message says what to give."""
        outcome = perform(decide("stop"), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert "Levers(checkpoint=...)" in str(outcome.error)

    def test_a_failing_lever_is_recorded_and_raises_nothing(self) -> None:
        """A guard never kills what it guards."""

        def checkpoint() -> None:
            raise OSError(28, "No space left on device")

        outcome = perform(
            decide("stop"), Levers(checkpoint=checkpoint), measure=lambda: 0, elapsed=ManualClock().elapsed
        )

        assert "No space left" in str(outcome.error)


def test_limits_of_frameworks_that_are_not_loaded_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program has loaded none, there is nothing to set, and nothing is imported."""
    for name in ("torch", "mlx.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert set_framework_limits(Budget(Bytes(10**9), "given", "")) == ()


def test_a_limit_is_shown_before_and_after() -> None:
    """People see what was changed."""
    assert str(LimitChange("MLX memory", "20.0 GB", "8.00 GB")) == "MLX memory: 20.0 GB -> 8.00 GB"
