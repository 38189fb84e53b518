"""Choose the number of CPU threads by a short measurement: more threads are slower where cores are shared.

Threads of a parallel product wait for one another. Where another program has a core, all wait for the thread that
is on it, many times in each step. How far that goes is known only by measuring, with the run's own steps.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from holdwater.errors import DataError
from holdwater.oom.out_of_memory import is_out_of_memory, release
from holdwater.train.trainable import Trainable

log = logging.getLogger("holdwater")

EXPLICIT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user sets the number of threads."""
ROUNDS = 3
"""Times that each number has its turn, so that all meet what else goes on."""
TURN = 0.1
"""Seconds of a turn, at least one pass."""
LONG = 1.0
"""A pass of more seconds is measured once, without a pass before it that warms up."""
WORTH = 0.9
"""More threads are chosen if a pass takes at most this share of the time."""


def explicit_threads(configured: int | None, environment: Mapping[str, str]) -> int | None:
    """The number of threads that the user has set; None if there is none.

    Args:
        configured: The value of `--threads`.
        environment: The process's.
    """
    if configured is not None:
        return configured
    return torch.get_num_threads() if any(environment.get(name) for name in EXPLICIT) else None


def choose_threads(state: Trainable) -> None:
    """Set the number of threads with which passes of the first batch are fastest; the state stays as it is.

    Args:
        state: Before its first step; only on a CPU do threads matter.
    """
    numbers = candidates(usable_cores())
    if state.settings.device != "cpu" or len(numbers) == 1:
        return
    chosen = torch.get_num_threads()
    try:
        with _as_it_was(state):
            seconds = measure(numbers, _first_pass(state))
        chosen = fastest(seconds)
        shown = ", ".join(f"{number}: {1000 * one:.1f} ms" for number, one in seconds.items())
        log.info("threads: %d (a pass with %s); set another number with --threads", chosen, shown)
    except Exception as error:
        if not is_out_of_memory(error) and not isinstance(error, DataError):  # the first step reports these
            raise
        release()
    finally:
        torch.set_num_threads(chosen)


def _first_pass(state: Trainable) -> Callable[[], None]:
    """A forward and backward pass of the first micro-batch.

    Raises:
        DataError: The batch cannot be read.
    """
    functions, batch = state.step_functions(), state.batches.draw(state.settings.device)
    part = functions.cut(batch, 0, min(functions.rows(batch), state.micro_batch))

    def take() -> None:
        """Take it."""
        functions.clear()
        functions.propagate(part, 1.0)

    return take


@contextmanager
def _as_it_was(state: Trainable) -> Iterator[None]:
    """Restore afterwards what passes change: gradients, random states, and which batch is the next."""
    functions, place = state.step_functions(), state.batches.state()
    kept = [(one, one.take()) for one in functions.kept]
    try:
        yield
    finally:
        functions.clear()
        for one, taken in kept:
            one.put(taken)
        state.batches.restore(place)


def measure(
    numbers: list[int], take: Callable[[], None], *, clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """The mean seconds of a pass, by the number of threads.

    Args:
        numbers: Of threads, in rising order; the smallest are left out where each pass would take long.
        take: Takes a pass.
        clock: Seconds.
    """

    def timed(number: int, least: float) -> tuple[float, int]:
        """Passes for so many seconds; how long they took, and how many they were."""
        torch.set_num_threads(number)
        began, passes = clock(), 0
        while not passes or clock() - began < least:
            take()
            passes += 1
        return clock() - began, passes

    warm: dict[int, tuple[float, int]] = {}
    for number in reversed(numbers):
        warm[number] = timed(number, 0.0)
        if warm[number][0] > max(LONG, 2 * min(warm.values())[0]):
            break  # fewer threads would take longer still
    turns: dict[int, list[tuple[float, int]]] = {number: [] for number in sorted(warm)}
    for _ in range(ROUNDS):
        for number, taken in turns.items():
            if warm[number][0] <= LONG:
                taken.append(timed(number, TURN))
    rows = {number: taken or [warm[number]] for number, taken in turns.items()}
    return {number: sum(row[0] for row in of) / sum(row[1] for row in of) for number, of in rows.items()}


def fastest(seconds: Mapping[int, float]) -> int:
    """The number of threads to use: the smallest that is about as fast as the fastest.

    Args:
        seconds: Of a pass, by the number of threads.
    """
    best = min(seconds.values())
    return min(number for number, one in seconds.items() if one * WORTH <= best)


def candidates(cores: int) -> list[int]:
    """The numbers of threads to try: powers of two, and all cores.

    Args:
        cores: That the process may use.
    """
    return sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
