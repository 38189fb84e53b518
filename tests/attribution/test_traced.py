"""Rules of the record of Python's allocations by the user's line."""

import tracemalloc
from typing import Any

from holdwater.attribution.traced import PythonRecord


def record(call: Any) -> tuple[PythonRecord, dict[str, Any]]:
    """Record twenty calls."""
    found = PythonRecord()
    found.start()
    call()
    found.mark()
    for _ in range(20):
        call()
    return found, found.stop(20)


def test_reports_the_line_whose_allocations_stay() -> None:
    """With its bytes over all calls, and the size of the small objects among them."""
    kept: list[Any] = []

    found, recorded = record(lambda: kept.append((bytearray(1000), [0.5] * 10)))

    first = recorded["places"][0]
    assert first["file"] == __file__
    assert first["of_steps"] == 20
    assert 20 * 1000 < first["bytes"] < 20 * 1500
    assert 0 < found.small_size < 512
    assert not tracemalloc.is_tracing()


def test_ignores_what_each_call_frees_again() -> None:
    """Only what stays counts."""
    _, recorded = record(lambda: len([bytearray(1000) for _ in range(9)]))

    assert sum(place["bytes"] for place in recorded["places"]) < 2000


def test_leaves_the_programs_own_trace_on() -> None:
    """A program that traces goes on tracing."""
    tracemalloc.start()
    try:
        record(lambda: None)

        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
