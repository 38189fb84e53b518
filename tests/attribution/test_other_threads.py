"""What another thread stores, while the loop runs lines of its own."""

from pathlib import Path
from typing import Any

import pytest

from holdwater.attribution.explanation import explain
from holdwater.attribution.site import Growing

POOL = """from multiprocessing import pool

def main(model, batches):
    results = pool.Pool(1).imap(len, batches)
    for batch in results:
        loss = model(batch)
        loss.backward()
        step(loss)
"""
IMAP, FORWARD, BACKWARD, STEP = 4, 6, 7, 8


def stored_at(
    folder: Path, lines: list[tuple[int, int]], *, threads: int, seconds: dict[int, float]
) -> int | None:
    """The line that is named for the results of a pool's iterator, if it grew at these lines so often."""
    import multiprocessing.pool

    script = str(folder / "train.py")
    Path(script).write_text(POOL, encoding="utf-8")
    naming = {
        "role": "attribute", "name": "_items", "owner": "multiprocessing.pool.IMapIterator",
        "file": multiprocessing.pool.__file__, "line": None,
    }  # fmt: skip
    gain: dict[str, Any] = {
        "kind": "container", "type": "deque", "count": 100, "elements": {"tuple": 100}, "nodes": 0, "files": 0,
        "weight": {"tensors": 0, "python": 1_000_000, "native": 0}, "views": False, "handles": 0,
        "path": [naming], "naming": naming, "bases": {}, "traits": [],
    }  # fmt: skip
    seen = {
        "from_step": 100, "to_step": 200, "gains": [gain], "users_files": [script], "missing": [],
        "threads": threads, "lines": {"0": [[script, line, count] for line, count in lines]},
        "heap": [[script, line, 0.0, spent] for line, spent in seconds.items()],
    }  # fmt: skip
    made = explain(seen, Growing("host.python", 10_000.0))
    return next((site.line for site in made.sites if site.role == "held"), None)


@pytest.mark.parametrize("lines", [
    [(FORWARD, 2), (BACKWARD, 2), (STEP, 1)], [(FORWARD, 1), (BACKWARD, 4)], [(BACKWARD, 5)],
])  # fmt: skip
def test_names_the_call_that_made_the_iterator(tmp_path: Path, lines: list[tuple[int, int]]) -> None:
    """The pool's thread adds to it whatever the loop does, most often in the line that takes longest."""
    assert stored_at(tmp_path, lines, threads=2, seconds={FORWARD: 0.2, BACKWARD: 0.7, STEP: 0.1}) == IMAP


def test_names_the_line_at_which_it_grows_where_no_other_thread_lives(tmp_path: Path) -> None:
    """Then only that line can have stored it."""
    assert stored_at(tmp_path, [(BACKWARD, 5)], threads=0, seconds={FORWARD: 0.2, BACKWARD: 0.7}) == BACKWARD


def test_names_a_quick_line_at_which_it_grows_each_time(tmp_path: Path) -> None:
    """Another thread would have added to it in the slow lines as well."""
    assert stored_at(tmp_path, [(STEP, 5)], threads=2, seconds={FORWARD: 0.6, STEP: 0.1}) == STEP
