"""Durations, written for people."""

import pytest

from holdwater.clock import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7385, "2 h 03 min"), (267_800, "3 d 2 h")],
)
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    """Seconds, minutes, hours, days: never more than needed."""
    assert format_duration(seconds) == text
