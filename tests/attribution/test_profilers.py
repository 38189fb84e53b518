"""A profiler of torch that is on is found under its name."""

import pytest

from holdwater.attribution.profilers import running_profiler

torch = pytest.importorskip("torch")


def test_reports_the_profiler_that_is_on() -> None:
    """By the variable that holds it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as watching:
        found = running_profiler()

    assert found is not None
    assert found.naming is not None
    assert (found.naming.name, found.type) == ("watching", "profile")
    assert watching is not None


def test_ignores_one_that_has_ended() -> None:
    """It keeps nothing more."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as ended:
        pass

    assert running_profiler() is None
    assert ended is not None
