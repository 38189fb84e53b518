"""Counts of objects as evidence: one that no longer sees what was held while the script ran tells nothing."""

from typing import Any

import pytest

from holdwater.detectors.evidence import NO_EVIDENCE


def answer(step: int, in_use: float, tensors: int, *, at_end: bool = False) -> dict[str, Any]:
    """What a process answers when it is asked to count."""
    census = {
        "tensors": tensors,
        "bulk": 0,
        "gained": {"python": 0},
        "datasets": 0,
        "room": None,
        "at_end": at_end,
    }
    return {"step": step, "before": {"heap_in_use": in_use}, "census": census}


@pytest.mark.parametrize(
    ("tensors", "in_use", "counts"), [(0, 50e6, 2), (30_000_000, 80e6, 3)], ids=["let go", "still held"]
)
def test_a_count_after_the_script_has_let_go_is_left_out(tensors: int, in_use: float, counts: int) -> None:
    """The variables of `main()` are gone when it has returned; those of a module are not."""
    evidence = NO_EVIDENCE
    for given in (answer(10, 40e6, 1_000_000), answer(100, 60e6, 20_000_000)):
        evidence = evidence.with_answer(given, samples_total=0)

    evidence = evidence.with_answer(answer(200, in_use, tensors, at_end=True), samples_total=0)

    assert len(evidence.holdings) == counts
