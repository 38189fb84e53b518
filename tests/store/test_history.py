"""What is read of a run's budgets: of each pool, and of older versions the one that they had."""

from pathlib import Path
from typing import Any

import pytest

from holdwater.store.history import read_history
from holdwater.store.run_store import RunStore
from holdwater.timeline.timeline import Timeline

GB = 10**9


def write(folder: Path, facts: dict[str, Any], summary: dict[str, Any] | None = None) -> None:
    """One process of a run."""
    store = RunStore(folder)
    store.begin(began=0, first_step=0, facts=facts)
    if summary is not None:
        store.summary(summary)
    store.flush(Timeline(64))
    store.close()


def row(gigabytes: int) -> dict[str, Any]:
    """A budget, as it is stored."""
    return {"limit_bytes": gigabytes * GB, "origin": "found", "reason": "half of the memory"}


def limits(folder: Path) -> tuple[int, int | None, bool] | None:
    """Gigabytes of host and device, and whether they are one."""
    budgets = read_history(folder).budgets
    if budgets is None:
        return None
    device = budgets.device
    return budgets.host.limit // GB, None if device is None else device.limit // GB, budgets.unified


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"budgets": {"host": row(4)}}, (4, None, False)),
        ({"budgets": {"host": row(4), "device:0": row(80)}}, (4, 80, False)),
        ({"budgets": {"unified": row(16)}}, (16, None, True)),
        ({"budget_bytes": 3 * GB}, (3, None, False)),
        ({}, None),
    ],
    ids=["host", "host and device", "one pool", "an older version", "none"],
)
def test_is_read_as_recorded(tmp_path: Path, facts: dict[str, Any], expected: tuple[Any, ...] | None) -> None:
    """Each pool by its own limit."""
    write(tmp_path, facts)

    assert limits(tmp_path) == expected


def test_the_newest_that_was_recorded_counts(tmp_path: Path) -> None:
    """Of the process's summary rather than of its beginning, and of the last process that has one."""
    write(tmp_path, {"budgets": {"host": row(1)}}, {"budgets": {"host": row(2)}})
    write(tmp_path, {"budgets": {"host": row(3)}}, {"budgets": {"host": row(4)}})
    write(tmp_path, {})

    assert limits(tmp_path) == (4, None, False)


def test_its_origin_and_reason_are_kept(tmp_path: Path) -> None:
    """For people."""
    write(tmp_path, {"budgets": {"host": row(4)}})

    budgets = read_history(tmp_path).budgets

    assert budgets is not None
    assert (budgets.host.origin, budgets.host.reason) == ("found", "half of the memory")
