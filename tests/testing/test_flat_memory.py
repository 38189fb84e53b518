"""Rules of the test whether a function leaks, without pytest."""

import gc
from typing import Any

import pytest

from holdwater.errors import ConfigError
from holdwater.testing.flat_memory import CallLimits, judge_function


def test_reports_a_large_leak_in_few_calls() -> None:
    """Ten kilobytes a call are plain after 300 calls."""
    kept: list[bytearray] = []

    verdict = judge_function(lambda: kept.append(bytearray(10_000)), CallLimits(steps=300))

    assert (verdict.kind, verdict.component) == ("leak", "host.python")
    assert verdict.rate is not None
    assert verdict.rate.bytes_per_call == pytest.approx(10_100, rel=0.05)


def test_ignores_what_the_tables_of_libraries_take_in_few_calls() -> None:
    """Three hundred bytes a call, over 200 calls, may be warm-up."""
    kept: list[bytearray] = []

    verdict = judge_function(lambda: kept.append(bytearray(600)), CallLimits(steps=200))

    assert verdict.kind == "settling"
    assert verdict.missed > 600


def test_a_leak_whose_step_fails_later_is_still_a_leak() -> None:
    """The calls that explain come after the verdict."""
    kept: list[bytearray] = []

    def step() -> None:
        if len(kept) > 1500:
            raise OSError("no more")
        kept.append(bytearray(2000))

    verdict = judge_function(step, CallLimits(steps=1500))

    assert verdict.kind == "leak"
    assert "no more" in str(verdict)


def test_leaves_the_collector_as_it_was() -> None:
    """What was frozen meanwhile is released, also where the step fails."""
    before = (gc.isenabled(), gc.get_freeze_count())
    count: Any = iter(range(100))

    with pytest.raises(StopIteration):
        judge_function(lambda: next(count))

    assert (gc.isenabled(), gc.get_freeze_count()) == before


def test_a_leak_that_would_take_all_memory_is_told_before() -> None:
    """Three megabytes a call end the test after a gigabyte, not after fifteen seconds."""
    kept: list[bytearray] = []

    verdict = judge_function(lambda: kept.append(bytearray(3_000_000)))
    size = len(kept)
    kept.clear()

    assert verdict.kind == "leak"
    assert size < 1000


@pytest.mark.parametrize("limits", [{"steps": 0}, {"steps": 1.5}, {"seconds": 0}, {"seconds": "long"}])
def test_refuses_limits_that_cannot_be_kept(limits: dict[str, Any]) -> None:
    """The message names the limit, its value and what to write."""
    with pytest.raises(ConfigError, match=r"flat_memory: (steps|seconds) is .*; write (steps|seconds)="):
        CallLimits(**limits)
