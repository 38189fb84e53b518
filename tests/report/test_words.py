"""Tests of findings in words: bytes, and what is only counted."""

from typing import Any

import pytest

from holdwater.report.words import forecast_in_words, slope_in_words


def finding(component: str, *, rate: float, limit: int) -> dict[str, Any]:
    """A finding as JSON.

    Args:
        component: What grows.
        rate: Per step.
        limit: That it meets in 400 steps.
    """
    return {
        "component": component,
        "rate": {"bytes_per_step": rate, "low": rate / 2, "high": None},
        "forecast": {"limit_bytes": limit, "steps": 400.0, "seconds": 400.0},
    }


@pytest.mark.parametrize(
    ("component", "rate", "limit", "slope", "reaches"),
    [
        (
            "device.active",
            2e9,
            70_000_000_000,
            "+2.00 GB/step (95 % interval +1.00 GB/step",
            "the budget of 70.0 GB",
        ),
        ("device.buffers", 1200, 499_000, "+1,200/step (95 % interval +600/step", "the limit of 499,000"),
        ("process.handles", 1, 1024, "+1/step (95 % interval +0.5/step", "the limit of 1,024"),
    ],
)
def test_each_has_its_unit(component: str, rate: float, limit: int, slope: str, reaches: str) -> None:
    """Buffers and open files are no bytes."""
    found = finding(component, rate=rate, limit=limit)

    assert slope_in_words(found).startswith(slope)
    assert forecast_in_words(found).startswith(f"reaches {reaches} in 400 steps")
