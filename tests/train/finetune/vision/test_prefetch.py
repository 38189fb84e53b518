"""The prefetcher: what is taken never depends on threads, and what waits never exceeds the bound."""

import _thread
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.errors import DataError
from holdwater.train.finetune.vision.prefetch import Prefetcher
from holdwater.units import Bytes

PATIENCE = 60.0
"""Seconds until a test gives up; no test waits for them."""


class Work:
    """Prepares numbers; those of a gate wait until that is opened."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.threads: set[int] = set()
        self.gates: dict[int, threading.Event] = {}
        self._changed = threading.Condition()

    def __call__(self, item: int) -> str:
        """Prepare."""
        with self._changed:
            self.begun.append(item)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()
        if item in self.gates:
            assert self.gates[item].wait(PATIENCE)
        return f"picture {item}"

    def gate(self, item: int) -> threading.Event:
        """Let an item wait."""
        self.gates[item] = threading.Event()
        return self.gates[item]

    def wait_for(self, *items: int) -> None:
        """Until they have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(items) <= set(self.begun), PATIENCE)


@pytest.fixture
def work() -> Work:
    """One."""
    return Work()


def prefetcher(
    work: Callable[[int], str], *, weigh: Callable[[int], int] = lambda _: 1, most: int = 100, threads: int = 2
) -> Prefetcher[int, str]:
    """One of some size."""
    return Prefetcher(work, weigh=weigh, most=Bytes(most), threads=threads)


class TestTake:
    """Returns what was prepared."""

    def test_prepares_ahead_in_another_thread(self, work: Work) -> None:
        """In the order of the announcements."""
        with prefetcher(work, threads=1) as pictures:
            for item in range(5):
                pictures.expect(item)
            work.wait_for(0, 1, 2, 3, 4)

            assert [pictures.take(item) for item in range(5)] == [f"picture {item}" for item in range(5)]
            assert work.begun == [0, 1, 2, 3, 4]
            assert threading.get_ident() not in work.threads

    def test_waits_for_what_is_under_way(self, work: Work) -> None:
        """It is not prepared twice."""
        gate = work.gate(0)
        with prefetcher(work) as pictures:
            pictures.expect(0)
            work.wait_for(0)
            opener = threading.Timer(0.0, gate.set)
            opener.start()

            assert pictures.take(0) == "picture 0"
            assert work.begun == [0]
            opener.join()

    def test_prepares_what_was_not_begun_itself(self, work: Work) -> None:
        """The only thread is busy with another item."""
        gate = work.gate(0)
        with prefetcher(work, threads=1) as pictures:
            pictures.expect(0)
            pictures.expect(1)
            work.wait_for(0)

            assert pictures.take(1) == "picture 1"
            assert threading.get_ident() in work.threads
            gate.set()
            assert pictures.take(0) == "picture 0"

    def test_takes_what_was_never_announced(self, work: Work) -> None:
        """Nothing but time is lost."""
        with prefetcher(work) as pictures:
            assert pictures.take(7) == "picture 7"

    def test_an_item_announced_twice_is_prepared_twice(self, work: Work) -> None:
        """Each is the caller's own."""
        with prefetcher(work) as pictures:
            pictures.expect(3)
            pictures.expect(3)
            work.wait_for(3)

            assert [pictures.take(3), pictures.take(3)] == ["picture 3", "picture 3"]
        assert work.begun == [3, 3]

    @pytest.mark.parametrize(
        "error", [DataError("example 3, picture 1 is damaged"), OSError(5, "no"), SystemExit(3)]
    )
    @pytest.mark.parametrize("ahead", [True, False])
    def test_raises_the_error_of_the_item(self, error: BaseException, ahead: bool) -> None:
        """When that is taken, and no other; with its own type."""
        begun = threading.Event()

        def prepare(item: int) -> str:
            if item:
                return "well"
            begun.set()
            raise error

        with prefetcher(prepare) as pictures:
            if ahead:
                pictures.expect(0)
                assert begun.wait(PATIENCE)
            pictures.expect(1)
            with pytest.raises(type(error)) as raised:
                pictures.take(0)

            assert raised.value is error
            assert pictures.take(1) == "well"

    def test_an_item_that_cannot_be_weighed_says_why_when_it_is_taken(self) -> None:
        """Its header may be damaged."""

        def damaged(item: int) -> str:
            raise DataError(f"picture {item}")

        def weigh(item: int) -> int:
            raise DataError("no header")

        with prefetcher(damaged, weigh=weigh) as pictures:
            pictures.expect(0)
            with pytest.raises(DataError, match="picture 0"):
                pictures.take(0)

    def test_keeps_nothing(self) -> None:
        """Neither the item nor what was made of it."""

        class Thing:
            pass

        made: list[weakref.ref[Thing]] = []

        def prepare(item: int) -> Thing:
            thing = Thing()
            made.append(weakref.ref(thing))
            if item == 2:
                raise DataError("damaged")
            return thing

        with Prefetcher(prepare, weigh=lambda _: 1, most=Bytes(9), threads=1) as pictures:
            for item in (0, 1, 2, 3):
                pictures.expect(item)
            for item in (0, 1, 2):
                try:
                    pictures.take(item)
                except DataError as error:
                    assert error.args == ("damaged",)  # noqa: PT017 - which item fails is not the point
            pictures.take(3)
            gc.collect()

            assert [one() for one in made[:3]] == [None] * 3
            assert not pictures._jobs
            assert pictures._held == 0


class TestBound:
    """Never more under way or waiting."""

    def test_nothing_begins_beyond_it(self, work: Work) -> None:
        """Until something is taken; a light item does not overtake a heavy one."""
        weights = {0: 4, 1: 4, 2: 5, 3: 2}
        with prefetcher(work, weigh=weights.__getitem__, most=10, threads=4) as pictures:
            for item in weights:
                pictures.expect(item)
            work.wait_for(0, 1)
            assert pictures._held == 8
            pictures.take(0)
            work.wait_for(2)
            assert pictures._held == 9
            assert 3 not in work.begun
            pictures.take(1)
            work.wait_for(3)

            assert pictures._held == 7

    def test_an_item_heavier_than_all_is_prepared_alone(self, work: Work) -> None:
        """When all before it are taken, and nothing after it begins meanwhile."""
        weights = {0: 1, 1: 50, 2: 1}
        gate = work.gate(1)
        with prefetcher(work, weigh=weights.__getitem__, most=10, threads=3) as pictures:
            for item in weights:
                pictures.expect(item)
            pictures.take(0)
            work.wait_for(1)
            assert pictures._held == 50
            assert 2 not in work.begun
            gate.set()
            pictures.take(1)
            work.wait_for(2)

            assert pictures._held == 1

    @given(
        weights=st.lists(st.integers(0, 12), min_size=1, max_size=25),
        most=st.integers(1, 20),
        threads=st.integers(1, 4),
        ahead=st.integers(0, 8),
    )
    @settings(max_examples=100, deadline=None)
    def test_holds_whatever_the_weights(self, weights: list[int], most: int, threads: int, ahead: int) -> None:
        """As seen by the preparation itself: those before it that nobody has begun to take, and it."""
        wrong: list[int] = []
        taken = 0

        def prepare(item: int) -> str:
            if item > taken and sum(weights[taken : item + 1]) > most and sum(weights[taken:item]) > 0:
                wrong.append(item)
            return f"picture {item}"

        with prefetcher(prepare, weigh=weights.__getitem__, most=most, threads=threads) as pictures:
            announced = 0
            for item in range(len(weights)):
                while announced < min(item + ahead, len(weights)):
                    pictures.expect(announced)
                    announced += 1
                assert pictures._held <= most or pictures._held in weights[item:announced]
                taken = item + 1
                assert pictures.take(item) == f"picture {item}"
                announced = max(announced, item + 1)
        assert wrong == []
        assert pictures._held == 0

    @given(order=st.permutations(range(8)), weights=st.lists(st.integers(0, 9), min_size=8, max_size=8))
    @settings(max_examples=50, deadline=None)
    def test_any_order_of_taking_gives_each_its_own(self, order: list[int], weights: list[int]) -> None:
        """And waits for nothing that cannot come."""
        with prefetcher(Work(), weigh=weights.__getitem__, most=10) as pictures:
            for item in range(8):
                pictures.expect(item)

            assert [pictures.take(item) for item in order] == [f"picture {item}" for item in order]
            assert pictures._held == 0


class TestForget:
    """Another position of the run."""

    def test_drops_what_was_announced(self, work: Work) -> None:
        """What is under way counts until it ends, and is not kept."""
        gate = work.gate(0)
        with prefetcher(work, weigh=lambda _: 6, most=10, threads=1) as pictures:
            pictures.expect(0)
            pictures.expect(1)
            work.wait_for(0)
            pictures.forget()
            pictures.expect(2)
            assert pictures._held == 6
            assert work.begun == [0]
            gate.set()
            work.wait_for(2)

            assert work.begun == [0, 2]
            assert pictures.take(2) == "picture 2"
            assert pictures._held == 0

    def test_drops_one_item(self, work: Work) -> None:
        """Ready, or not begun: what waits for its room begins, and the item itself does not."""
        with prefetcher(work, most=2, threads=1) as pictures:
            for item in (0, 1, 2, 3):
                pictures.expect(item)
            work.wait_for(0, 1)
            pictures.drop(2)
            pictures.drop(0)
            pictures.drop(7)
            work.wait_for(0, 1, 3)

            assert pictures.take(1) == "picture 1"
            assert pictures.take(3) == "picture 3"
        assert work.begun == [0, 1, 3]

    def test_close_ends_the_threads(self, work: Work) -> None:
        """What is taken later is prepared by whoever takes it; what is announced later is not begun."""
        pictures = prefetcher(work)
        for item in range(4):
            pictures.expect(item)
        pictures.close()
        assert not [one for one in threading.enumerate() if one.name.startswith("holdwater-pictures")]
        pictures.expect(9)

        assert pictures.take(9) == "picture 9"
        assert threading.get_ident() in work.threads
        pictures.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork
def test_a_fork_begins_anew(work: Work) -> None:
    """It has no threads, and none of what the parent announced."""
    gate = work.gate(0)
    with prefetcher(work, threads=1) as pictures:
        pictures.expect(0)
        pictures.expect(1)
        work.wait_for(0)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            work.gates.clear()
            pictures.expect(2)
            right = [pictures.take(item) for item in (0, 1, 2)] == ["picture 0", "picture 1", "picture 2"]
            pictures.close()
            os._exit(0 if right else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        gate.set()

        assert status == 0
        assert [pictures.take(item) for item in (0, 1)] == ["picture 0", "picture 1"]


def test_an_interrupted_start_prepares_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a thread begins: who starts it cannot know whether it will work on the item."""
    prepared, begun = list[int](), threading.Event()

    def prepare(item: int) -> int:
        """Note it."""
        prepared.append(item)
        return item

    def late(thread: threading.Thread) -> None:
        """Begin after the interruption, as a busy machine does."""

        def begin() -> None:
            """The thread, at last."""
            begun.wait()
            thread.run()

        _thread.start_new_thread(begin, ())
        raise KeyboardInterrupt

    pictures = Prefetcher(prepare, weigh=lambda _: Bytes(1), most=Bytes(10), threads=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", late)
        with pytest.raises(KeyboardInterrupt):
            pictures.expect(7)
    begun.set()

    assert pictures.take(7) == 7
    pictures.close()
    assert prepared == [7]


ENDS = """
import os, signal, sys, threading
from holdwater.train.finetune.vision.prefetch import Prefetcher
begun, gate = [], threading.Event()
def prepare(item):
    begun.append(item)
    if item == 0 and sys.argv[1] == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
    if sys.argv[1] != "finished":
        gate.wait()
    return item
pictures = Prefetcher(prepare, weigh=lambda item: 1, most=10**9, threads=2)
try:
    for item in range(1000):
        pictures.expect(item)
    if sys.argv[1] == "interrupted":
        pictures.take(0)
    elif sys.argv[1] == "exits":
        threading.Timer(0.2, gate.set).start()
        sys.exit(3)
    else:
        pictures.take(0)
except KeyboardInterrupt:
    threading.Timer(0.2, gate.set).start()
    sys.exit(4)
"""


@pytest.mark.parametrize(("how", "code"), [("finished", 0), ("exits", 3), ("interrupted", 4)])
def test_ends_with_the_interpreter(how: str, code: int) -> None:
    """Without close, whatever waits; what is under way ends, and nothing more begins."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, how], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stderr) == (code, "")
