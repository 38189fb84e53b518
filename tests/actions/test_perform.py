"""Actions: measured, and harmless to the run when they fail."""

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, applies, perform, rehearsed
from holdwater.policy.decision import ActionName, Decision
from holdwater.probes.host import Resident
from holdwater.testing import ManualClock
from holdwater.units import Step

Frameworks = Callable[..., list[tuple[str, Any]]]


def decide(action: ActionName) -> Decision:
    """A decision for an action."""
    return Decision(Step(7), action, "why")


class TestPerform:
    """Carries out one decision."""

    def test_measures_what_was_freed_and_how_long_it_took(self) -> None:
        """Bytes before less bytes after; seconds on the clock that was handed in."""
        readings = iter([1000, 400])
        clock = ManualClock()
        clock.advance(100.0)

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

    @pytest.mark.parametrize(("action", "word"), [("synchronise", "synchronise"), ("clear_caches", "empty")])
    def test_acts_on_each_accelerator_that_is_in_use(
        self, action: ActionName, word: str, frameworks: Frameworks
    ) -> None:
        """Waits for it, or empties its framework's cache."""
        asked = frameworks(cuda="in use", mps=True, mlx=True)

        outcome = perform(decide(action), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert outcome.error is None
        assert asked == [(f"{name} {word}", None) for name in ("cuda", "mps", "mlx")]

    @pytest.mark.parametrize("action", ["synchronise", "clear_caches"])
    @pytest.mark.parametrize("cuda", ["absent", "visible"])
    def test_touches_no_framework_that_is_not_used(
        self, action: ActionName, cuda: str, frameworks: Frameworks
    ) -> None:
        """A device that was never started is not started for it."""
        asked = frameworks(cuda=cuda)

        outcome = perform(decide(action), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert (outcome.error, asked) == (None, [])

    @pytest.mark.parametrize("action", ["synchronise", "clear_caches"])
    def test_needs_no_framework(self, action: ActionName, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program without PyTorch and MLX."""
        for name in ("torch", "mlx.core"):
            monkeypatch.delitem(sys.modules, name, raising=False)

        outcome = perform(decide(action), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert outcome.error is None

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

    def test_a_run_is_recycled_by_its_own_lever(self) -> None:
        """Whoever gave one is asked to end after this step; without one the message says what is missing."""
        called: list[str] = []

        def recycle() -> None:
            called.append("recycle")

        done, refused = (
            perform(decide("recycle"), levers, measure=lambda: 0, elapsed=ManualClock().elapsed)
            for levers in (Levers(recycle=recycle), Levers())
        )

        assert (called, done.error) == (["recycle"], None)
        assert "run it under one" in str(refused.error)

    @pytest.mark.parametrize("action", ["micro_batch", "replace_worker"])
    def test_what_others_do_is_refused(self, action: ActionName) -> None:
        """The training step, and what watches the loaders."""
        outcome = perform(decide(action), Levers(), measure=lambda: 0, elapsed=ManualClock().elapsed)

        assert "does that itself" in str(outcome.error)


def test_a_dry_run_notes_what_would_be_done() -> None:
    """Nothing is freed, and it takes no time."""
    assert rehearsed(decide("trim")) == Outcome(Step(7), "trim", "dry run: why", 0, 0.0)


class TestApplies:
    """Whether an action has something to act on."""

    @pytest.mark.parametrize("action", ["trim", "stop", "recycle"])
    def test_most_do_anywhere(self, action: ActionName) -> None:
        """They need nothing but the process."""
        assert applies(action)

    def test_a_worker_is_replaced_by_others(self) -> None:
        """By what watches the loaders."""
        assert not applies("replace_worker")

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [((999, 0, 0), False), ((1000, 0, 0), True), ((0, 1, 0), True), ((0, 0, 1), True)],
    )
    def test_a_collection_needs_new_objects(
        self, counts: tuple[int, int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thousand since the last full one, or as many as have made Python collect the younger ones."""
        monkeypatch.setattr(gc, "get_count", lambda: counts)

        assert applies("collect") is expected

    @pytest.mark.parametrize("action", ["synchronise", "clear_caches"])
    @pytest.mark.parametrize(
        ("there", "expected"),
        [
            ({"cuda": "absent"}, False),
            ({"cuda": "visible"}, False),
            ({"cuda": "in use"}, True),
            ({"mps": True}, True),
            ({"mlx": True}, True),
        ],
        ids=str,
    )
    def test_waiting_and_clearing_need_an_accelerator(
        self, action: ActionName, there: dict[str, Any], expected: bool, frameworks: Frameworks
    ) -> None:
        """One that the program has started, or that works as soon as its framework is loaded."""
        frameworks(**there)

        assert applies(action) is expected
