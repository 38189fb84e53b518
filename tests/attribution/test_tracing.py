"""At which line a list grows, and which line allocates what stays."""

import sys
import threading
from pathlib import Path

import pytest

from holdwater.attribution.capture import Capture, profiler_in_use
from holdwater.attribution.recorded import read
from holdwater.attribution.tracing import LineTrace

ROWS: list[object] = []


def keep(value: object) -> None:
    """Store a value."""
    ROWS.append(value)


def never_called(value: object) -> None:
    """Another way to store a value."""
    ROWS.append(value)


def work(trace: LineTrace, steps: int) -> None:
    """A loop that stores in a function of its own; it is running already when it begins to be followed."""
    started = trace.start()
    for step in range(steps):
        keep(step)
    if started:
        trace.stop()


class TestLineTrace:
    """Books growth to the line that ran."""

    def test_books_growth_to_the_line_that_stores(self) -> None:
        """Within a function that is called."""
        trace = LineTrace([ROWS], None, most_seconds=5)

        work(trace, 7)

        line = keep.__code__.co_firstlineno + 2
        assert dict(trace.grown[0]) == {(__file__, line): 7}
        assert sys.gettrace() is None

    def test_leaves_another_trace_function_alone(self) -> None:
        """A debugger's, say."""
        other = lambda *_: None  # noqa: E731 - one that does nothing
        sys.settrace(other)
        try:
            assert not LineTrace([ROWS], None, most_seconds=5).start()
            assert sys.gettrace() is other
        finally:
            sys.settrace(None)

    def test_gives_up_when_it_takes_too_long(self) -> None:
        """And then is off, before anybody stops it."""
        trace = LineTrace([ROWS], None, most_seconds=0.0)

        trace.start()
        for step in range(500):
            keep(step)
        following, here = sys.gettrace(), sys._getframe().f_trace
        trace.stop()

        assert trace.gave_up
        assert (following, here) == (None, None)

    def test_goes_on_as_long_as_it_is_quick(self) -> None:
        """500 calls, and a minute for them."""
        trace = LineTrace([ROWS], None, most_seconds=60)

        work(trace, 500)

        assert not trace.gave_up
        assert sum(trace.grown[0].values()) == 500
        assert sys._getframe().f_trace is None

    def test_notes_which_lines_have_run(self) -> None:
        """The line that stores; not one of a function that nobody called."""
        trace = LineTrace([ROWS], None, most_seconds=5)

        work(trace, 2)

        assert not trace.gave_up
        assert keep.__code__.co_firstlineno + 2 in trace.ran[__file__]
        assert never_called.__code__.co_firstlineno + 2 not in trace.ran[__file__]

    def test_books_the_heap(self) -> None:
        """Whatever is read there, by line."""
        readings = iter(range(0, 10_000_000, 1000))
        trace = LineTrace([ROWS], lambda: float(next(readings)), most_seconds=5)

        work(trace, 3)

        assert sum(trace.heap.values()) > 0


class TestProfilerInUse:
    """Whose place a recorder would take."""

    def test_sees_a_profile_function(self) -> None:
        """Python's own `cProfile` sets one too."""
        sys.setprofile(lambda *_: None)
        try:
            found = profiler_in_use()
        finally:
            sys.setprofile(None)

        assert found == "a profile function is set"

    def test_sees_none_where_none_is(self) -> None:
        """Unless the tests themselves are followed."""
        if sys.gettrace() is not None:
            pytest.skip("a trace function is set: coverage or a debugger")

        assert profiler_in_use() is None


class GuardOfMemray:
    """Stands in for the profile function that memray before 1.18 set."""

    __module__ = "memray._memray"

    def __call__(self, *_: object) -> None:
        """Nothing is recorded here."""


class TestCapture:
    """Records what stays, by the user's line."""

    def test_finds_what_stays_and_ignores_what_goes(self, tmp_path: Path) -> None:
        """100 kB a step are kept, 200 kB a step are dropped."""
        pytest.importorskip("memray")
        capture = Capture(tmp_path / "record")
        kept, dropped = [], None
        assert capture.load() is None
        assert capture.start() is None

        for _ in range(8):
            kept.append(bytearray(100_000))
            dropped = bytearray(200_000)
            capture.mark()

        assert capture.stop()
        found = read(tmp_path / "record")
        first = found["places"][0]
        assert found["steps"] == 8
        assert (first["file"], first["steps"], first["of_steps"]) == (__file__, 7, 7)
        assert first["bytes"] == pytest.approx(700_000, rel=0.01)
        assert "kept.append" in Path(__file__).read_text().splitlines()[first["line"] - 1]
        assert len(dropped or b"") == 200_000

    def test_records_nothing_where_little_space_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The script may need it."""
        pytest.importorskip("memray")
        monkeypatch.setattr("holdwater.attribution.capture.LEAST_FREE", 1 << 62)
        capture = Capture(tmp_path / "record")
        assert capture.load() is None

        reason = capture.start()

        assert reason == f"there is too little space in {tmp_path}, so allocations were not recorded"
        assert not (tmp_path / "record").exists()

    def test_gives_way_to_the_programs_own_recorder(self, tmp_path: Path) -> None:
        """Memray allows one; ours is thrown away, and theirs is whole."""
        memray = pytest.importorskip("memray")
        capture = Capture(tmp_path / "ours")
        capture.load()
        capture.start()

        with memray.Tracker(tmp_path / "theirs"):
            capture.mark()
            kept = bytearray(100_000)

        sizes = [row.size for row in memray.FileReader(tmp_path / "theirs").get_allocation_records()]
        assert max(sizes) == len(kept) + 1
        assert not (tmp_path / "ours").exists()
        assert "with memray itself" in (capture.lost or "")
        assert not capture.stop()

    def test_does_not_begin_beside_the_programs_own_recorder(self, tmp_path: Path) -> None:
        """It says so, and theirs goes on."""
        memray = pytest.importorskip("memray")
        capture = Capture(tmp_path / "ours")
        capture.load()

        with memray.Tracker(tmp_path / "theirs"):
            reason = capture.start()

        assert reason == "the script records with memray itself, so allocations were not recorded"

    def test_leaves_a_profiler_on_that_was_set_meanwhile(self, tmp_path: Path) -> None:
        """Memray would set the thread's profile function to none at its end."""
        pytest.importorskip("memray")
        capture, other = Capture(tmp_path / "ours"), lambda *_: None
        capture.load()
        capture.start()

        sys.setprofile(other)
        capture.mark()
        profile = sys.getprofile()
        sys.setprofile(None)

        assert profile is other
        assert "profile function" in (capture.lost or "")

    def test_ignores_the_profile_function_that_memray_sets(self, tmp_path: Path) -> None:
        """Before 1.18 it set one, which is neither the script's nor to be set again."""
        pytest.importorskip("memray")
        capture, guard = Capture(tmp_path / "record"), GuardOfMemray()
        capture.load()
        capture.start()

        sys.setprofile(guard)
        capture.mark()
        stopped = capture.stop()
        profile = sys.getprofile()
        sys.setprofile(None)

        assert stopped
        assert capture.lost is None
        assert profile is not guard

    def test_leaves_no_thread(self, tmp_path: Path) -> None:
        """It begins on a thread of its own, which ends."""
        pytest.importorskip("memray")
        capture = Capture(tmp_path / "record")
        capture.load()
        before = threading.active_count()

        capture.start()
        capture.stop()

        assert threading.active_count() == before
        assert not capture.stop()
