"""Prepare pictures in threads, ahead of the step that needs them, within a bound in bytes.

Items begin in the order in which they were announced, and what is taken does not depend on which ends first.

A thread ends as soon as nothing may begin, so that none has to be woken when the interpreter ends. The pool of
`concurrent.futures` waits for its idle threads then, and forever for one whose start Ctrl-C interrupted.
"""

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from holdwater.units import Bytes

P = TypeVar("P", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job(Generic[P, T]):
    """An item that will be needed."""

    item: P
    weight: int
    future: "Future[T] | None" = None
    """Its preparation; None before that begins."""


class Prefetcher(Generic[P, T]):
    """Prepares announced items in threads; what is ready or under way never weighs more than a bound.

    An item that is heavier than the bound is prepared alone, when all before it are taken. What is taken before it
    was begun is prepared by the thread that takes it, at once. It counts while it is prepared; so only items that
    are taken out of their order can exceed the bound, each by its own weight.

    A forked child begins anew, with nothing announced.
    """

    def __init__(self, prepare: Callable[[P], T], *, weigh: Callable[[P], int], most: Bytes, threads: int) -> None:
        """Begin with nothing announced; threads start with the first item.

        Args:
            prepare: Turns an item into what is taken; is called by several threads.
            weigh: The bytes of what it makes of an item. If it raises, the item counts nothing: `prepare` will say
                what is wrong.
            most: The bound in bytes.
            threads: How many prepare at once, at least 1.
        """
        self._prepare, self._weigh = prepare, weigh
        self._most, self._threads = most, threads
        self._closed = False
        self._start_anew()

    def expect(self, item: P) -> None:
        """Announce an item that will be taken, after all that were announced before.

        Args:
            item: Announced as often as it will be taken.
        """
        self._notice_fork()
        job: _Job[P, T] = _Job(item, self._weight(item))
        with self._lock:
            if not self._closed:
                self._jobs[item].append(job)
                self._queue.append(job)
                self._begin()

    def take(self, item: P) -> T:
        """Return what was prepared of an item, or prepare it; an error of its preparation is raised here.

        Args:
            item: Announced or not.
        """
        self._notice_fork()
        with self._lock:
            job = self._pop(item)
            future = job.future
        if future is None:
            try:
                return self._prepare(item)
            finally:
                self._release(job.weight)
        try:
            return future.result()
        finally:
            self._release_after(future, job.weight)
            del future, job  # an error that is raised refers to this frame

    def drop(self, item: P) -> None:
        """Forget an item that was announced and will not be taken.

        Args:
            item: Nothing follows if it was not announced.
        """
        self._notice_fork()
        with self._lock:
            if item not in self._jobs:
                return
            job = self._pop(item)
            future = job.future
        if future is None:
            self._release(job.weight)
        else:
            self._release_after(future, job.weight)

    def forget(self) -> None:
        """Drop all that was announced, ready or not: other items will be needed."""
        self._notice_fork()
        with self._lock:
            jobs = [job for jobs in self._jobs.values() for job in jobs]
            self._jobs.clear()
            self._queue.clear()
        for job in jobs:
            if job.future is not None:
                self._release_after(job.future, job.weight)

    def close(self) -> None:
        """Forget all and end the threads; what is taken from now on is prepared by the thread that takes it."""
        self._notice_fork()
        self._closed = True
        self.forget()
        with self._lock:
            working = list(self._working)
        for thread in working:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_anew(self) -> None:
        """Know of nothing, and have no thread."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._working: set[threading.Thread] = set()
        self._jobs: defaultdict[P, deque[_Job[P, T]]] = defaultdict(deque)
        self._queue: deque[_Job[P, T]] = deque()
        """Jobs that have not begun, in their order."""
        self._held = 0
        """Bytes of what is ready or under way."""

    def _notice_fork(self) -> None:
        """In a child there are no threads, and one of the parent's may have held the lock."""
        if self._process != os.getpid():
            self._start_anew()

    def _weight(self, item: P) -> int:
        """Bytes of what an item becomes."""
        try:
            return self._weigh(item)
        except Exception:  # noqa: BLE001 - what is wrong with the item is said when it is taken
            return 0

    def _pop(self, item: P) -> _Job[P, T]:
        """Take the first job of an item, or make one; its weight is held from here on."""
        jobs = self._jobs.get(item)
        job: _Job[P, T] = jobs.popleft() if jobs else _Job(item, self._weight(item))
        if jobs is not None and not jobs:
            del self._jobs[item]
        if job.future is None:
            with suppress(ValueError):
                self._queue.remove(job)
            self._held += job.weight
        return job

    def _next(self) -> "_Job[P, T] | None":
        """The next job, if the bound allows it and the interpreter does not end; it is under way from here on."""
        if not self._queue or not threading.main_thread().is_alive():
            return None
        weight = self._queue[0].weight
        if self._held and self._held + weight > self._most:
            return None
        job = self._queue.popleft()
        job.future = Future()
        self._held += weight
        return job

    def _begin(self) -> None:
        """Start threads for the jobs that may begin."""
        while len(self._working) < self._threads and (job := self._next()) is not None:
            claim = [job]
            thread = threading.Thread(target=self._work, args=(claim,), name="holdwater-pictures", daemon=False)
            self._working.add(thread)
            try:
                thread.start()
            except BaseException as error:
                with suppress(IndexError):  # the thread has begun with it, and nobody else may
                    claim.pop()
                    self._working.discard(thread)
                    self._held -= job.weight
                    job.future = None
                    self._queue.appendleft(job)
                if isinstance(error, RuntimeError):
                    return
                raise

    def _work(self, first: "list[_Job[P, T]]") -> None:
        """Prepare a job, then what may begin next, until there is nothing.

        Args:
            first: Holds the job; it is taken out, for the thread keeps its arguments until it ends. Empty if the
                call that started the thread was interrupted, and has taken it back.
        """
        job: _Job[P, T] | None = None
        with suppress(IndexError):
            job = first.pop()
        while job is not None:
            assert job.future is not None  # noqa: S101 - `_next` made it
            try:
                made = self._prepare(job.item)
            except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the item
                job.future.set_exception(error)
            else:
                job.future.set_result(made)
                del made
            del job  # what it has become may be gone before the lock is free
            with self._lock:
                job = self._next()
                if job is None:
                    self._working.discard(threading.current_thread())

    def _release_after(self, future: "Future[T]", weight: int) -> None:
        """Count something no longer as soon as it is not under way any more."""
        future.add_done_callback(lambda _: self._release(weight))

    def _release(self, weight: int) -> None:
        """Count something no longer, and begin what had to wait for it."""
        with self._lock:
            self._held -= weight
            self._begin()
