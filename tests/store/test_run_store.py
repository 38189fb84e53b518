"""The history of a run on disk: what was flushed is there, however the run ended."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from holdwater.actions.perform import Outcome
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.errors import StoreError
from holdwater.policy.decision import Decision
from holdwater.store import run_store
from holdwater.store.history import read_history
from holdwater.store.run_store import RunStore, amend_summary
from holdwater.testing import make_sample
from holdwater.timeline.timeline import CAPACITY, Timeline
from holdwater.units import Step


def filled(folder: Path, steps: int, *, first: int = 0, capacity: int = 64, peak_at: int = 0) -> Timeline:
    """Write a session of so many steps, flushed every ten, and close it."""
    store, timeline = RunStore(folder), Timeline(capacity)
    store.begin(began=1e9, first_step=first, facts={"command": ["train"]})
    if first:  # as the guard does: it looks once before it goes on
        timeline.append(make_sample(first, 1e8))
    for step in range(first + 1, first + steps + 1):
        timeline.append(make_sample(step, 5e9 if step == peak_at else 1e8 + step))
        if step % 10 == 0:
            store.flush(timeline)
    store.flush(timeline)
    store.close()
    return timeline


def rows_of(folder: Path, table: str) -> list[tuple[object, ...]]:
    """All rows of a table of the database."""
    with contextlib.closing(sqlite3.connect(folder / "rank-0.db")) as database:
        return list(database.execute(f"SELECT * FROM {table} ORDER BY rowid"))  # noqa: S608 - our own names


class TestRunStore:
    """Writes samples, marks, decisions and outcomes."""

    @pytest.mark.parametrize("steps", [1, 9, 64, 65, 1000])
    def test_returns_what_it_was_given(self, tmp_path: Path, steps: int) -> None:
        """What is read equals the timeline, before and after it merged pairs."""
        timeline = filled(tmp_path, steps)

        samples, expected = read_history(tmp_path).samples, timeline.buckets()

        assert np.array_equal(samples.first_step, expected.first_step)
        assert np.array_equal(samples.last_step, expected.last_step)
        assert np.array_equal(samples.seconds, expected.seconds)
        for series in ("resident", "available", "loss"):
            assert np.array_equal(samples.lows(series), expected.lows(series), equal_nan=True)
            assert np.array_equal(samples.highs(series), expected.highs(series), equal_nan=True)
            assert np.allclose(samples.means(series), expected.means(series), equal_nan=True)

    def test_keeps_the_peak_of_a_long_run_in_a_small_file(self, tmp_path: Path) -> None:
        """Bounded in size, and one step of 5 GB among 20,000 is still seen."""
        filled(tmp_path, 20_000, peak_at=7777)

        history = read_history(tmp_path)

        assert history.samples.peak("resident") is not None
        assert np.nanmax(history.samples.highs("resident")) == 5e9
        assert len(history.samples) <= 65

    def test_keeps_findings_by_the_names_of_schema_1(self, tmp_path: Path) -> None:
        """Whoever reads the file finds a finding's message as its advice."""
        finding = Finding(verdict="leak", component="host.python", detected_step=Step(9), message="it grows")
        store = RunStore(tmp_path)
        store.begin(began=0, first_step=0, facts={})
        store.verdict(Verdict.of((finding,), Step(9)))
        store.flush(Timeline(64))
        store.close()

        with contextlib.closing(sqlite3.connect(tmp_path / "rank-0.db")) as database:
            ((rows,),) = database.execute("SELECT findings FROM verdicts").fetchall()
        (row,) = json.loads(rows)
        assert (row["verdict"], row["component"], row["advice"]) == ("leak", "host.python", "it grows")
        assert "message" not in row

    def test_keeps_events_in_order(self, tmp_path: Path) -> None:
        """Marks come back with their facts, and what was decided and done with its reason."""
        store, timeline = RunStore(tmp_path), Timeline(64)
        store.begin(began=0, first_step=0, facts={})
        timeline.append(make_sample(1, 5))
        store.mark(1, 0.1, "evaluation", {"loss": 2.5})
        store.mark(2, 0.2, "checkpoint", {})
        store.decision(Decision(Step(1), "collect", "why"))
        store.decision(Decision(Step(3), "trim", "again"))
        store.outcome(Outcome(Step(1), "collect", "why", 4096, 0.5))
        store.outcome(Outcome(Step(3), "trim", "again", -1, 0.25, "no malloc_trim"))
        store.verdict(Verdict("flat", Step(4), ()))
        store.flush(timeline)

        history = read_history(tmp_path)  # while the writer is open

        assert [(mark.session, mark.step, mark.seconds, mark.kind, mark.facts) for mark in history.marks] == [
            (1, 1, 0.1, "evaluation", {"loss": 2.5}),
            (1, 2, 0.2, "checkpoint", {}),
        ]
        names = ("session", "step", "action", "reason", "freed_bytes", "seconds", "error")
        assert [tuple(row[name] for name in names) for row in history.outcomes] == [
            (1, 1, "collect", "why", 4096, 0.5, None),
            (1, 3, "trim", "again", -1, 0.25, "no malloc_trim"),
        ]
        assert history.verdicts == ((4, "flat"),)
        assert rows_of(tmp_path, "decisions") == [(1, 1, "collect", "why"), (1, 3, "trim", "again")]
        store.close()

    def test_the_summary_of_the_whole_run_replaces_that_of_its_last_process(self, tmp_path: Path) -> None:
        """Of two processes; what the first one said stays."""
        for process in (1, 2):
            store = RunStore(tmp_path)
            store.begin(began=0, first_step=0, facts={})
            store.summary({"steps": 0})
            store.summary({"steps": process})
            store.flush(Timeline(64))
            store.close()

        amend_summary(tmp_path, {"steps": 3})

        history = read_history(tmp_path)
        assert [session.summary for session in history.sessions] == [{"steps": 1}, {"steps": 3}]
        assert history.summary == {"steps": 3}

    def test_a_run_begun_again_forgets_its_samples_and_verdicts(self, tmp_path: Path) -> None:
        """Another clock was found; what was marked and done stays, and so do those that are not written yet."""
        store, timeline = RunStore(tmp_path), Timeline(64)
        store.begin(began=0, first_step=0, facts={})
        timeline.append(make_sample(1, 5))
        store.verdict(Verdict("flat", Step(1), ()))
        store.flush(timeline)
        store.verdict(Verdict("flat", Step(2), ()))
        store.mark(2, 0.2, "checkpoint", {})

        store.begin_again()
        store.verdict(Verdict("flat", Step(3), ()))
        store.flush(Timeline(64))
        store.close()

        history = read_history(tmp_path)
        assert (len(history.samples), history.verdicts) == (0, ((3, "flat"),))
        assert [mark.kind for mark in history.marks] == ["checkpoint"]

    def test_a_store_that_cannot_write_keeps_the_newest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What waits is bounded: the older half goes."""
        monkeypatch.setattr(run_store, "MOST_MARKS", 10)
        store = RunStore(tmp_path)
        store.begin(began=0, first_step=0, facts={})
        for step in range(1, 15):
            store.mark(step, 0.0, "epoch", {})
        store.flush(Timeline(64))
        store.close()

        assert [mark.step for mark in read_history(tmp_path).marks] == list(range(6, 15))

    def test_the_oldest_marks_of_a_long_run_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """When its next process begins."""
        for step in range(1, 9):
            store = RunStore(tmp_path)
            store.begin(began=0, first_step=0, facts={})
            store.mark(step, 0.0, "epoch", {})
            store.flush(Timeline(64))
            store.close()
        monkeypatch.setattr(run_store, "MOST_MARKS", 5)
        store = RunStore(tmp_path)
        store.begin(began=0, first_step=0, facts={})
        store.close()

        assert [mark.step for mark in read_history(tmp_path).marks] == [4, 5, 6, 7, 8]

    def test_a_resumed_run_leaves_out_what_was_done_twice(self, tmp_path: Path) -> None:
        """Killed at 100, resumed from 80: steps 81 to 100 are those of the second session."""
        filled(tmp_path, 100, capacity=256)
        filled(tmp_path, 50, first=80, capacity=256)

        history = read_history(tmp_path)

        assert len(history.sessions) == 2
        assert history.samples.first_step.tolist() == list(range(1, 131))

    def test_a_run_that_went_back_twice_has_each_step_once(self, tmp_path: Path) -> None:
        """Killed at 100, resumed from 80 to 110, and again from 50: what is left increases."""
        filled(tmp_path, 100, capacity=256)
        filled(tmp_path, 30, first=80, capacity=256)
        filled(tmp_path, 30, first=50, capacity=256)

        assert read_history(tmp_path).samples.first_step.tolist() == list(range(1, 81))

    def test_text_in_any_encoding_can_be_stored(self, tmp_path: Path) -> None:
        """A file name in another encoding does not block the history."""
        store, timeline = RunStore(tmp_path), Timeline(64)
        store.begin(began=0, first_step=0, facts={})
        timeline.append(make_sample(1, 5))
        store.mark(1, 0.1, os.fsdecode(b"caf\xe9"), {"path": os.fsdecode(b"caf\xe9")})
        store.flush(timeline)
        store.close()

        assert read_history(tmp_path).marks[0].kind == "caf\\udce9"

    def test_many_sessions_stay_within_the_size_of_a_few(self, tmp_path: Path) -> None:
        """A run that is restarted again and again does not fill the disk."""
        for session in range(12):
            filled(tmp_path, 1000, first=1000 * session, capacity=CAPACITY)

        (rows,) = sqlite3.connect(tmp_path / "rank-0.db").execute("SELECT count(*) FROM samples").fetchone()
        assert rows <= 2 * CAPACITY
        assert int(read_history(tmp_path).samples.last_step[-1]) == 12_000

    def test_an_error_of_the_disk_is_a_store_error_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """What could not be written waits, and is written when the disk works again."""
        store, timeline = RunStore(tmp_path), Timeline(64)
        store.begin(began=0, first_step=0, facts={})
        timeline.append(make_sample(1, 5))
        store.mark(1, 0.1, "epoch", {})
        blocker = sqlite3.connect(store.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        store._connection.execute("PRAGMA busy_timeout = 10")

        with pytest.raises(StoreError, match="cannot be written"):
            store.flush(timeline)
        blocker.execute("ROLLBACK")
        store.flush(timeline)

        history = read_history(tmp_path)
        assert (len(history.samples), len(history.marks)) == (1, 1)
        store.close()
        blocker.close()


WRITER = """
import sys
from pathlib import Path
from holdwater.store.run_store import RunStore, amend_summary
from holdwater.timeline.timeline import Timeline
from holdwater.testing import make_sample
store, timeline = RunStore(Path(sys.argv[1])), Timeline(256)
store.begin(began=0, first_step=0, facts={})
step = 0
while True:
    step += 1
    timeline.append(make_sample(step, 1e8 + step))
    store.mark(step, 0.0, "epoch", {})
    store.flush(timeline)
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.05, 0.21, 0.47])
def test_the_history_is_whole_after_kill_9(tmp_path: Path, delay: float) -> None:
    """Killed in the middle of a flush: every step that was reported as flushed is there."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(delay)
    os.kill(writer.pid, signal.SIGKILL)
    flushed = int(writer.communicate()[0].split("\n")[-2])

    history = read_history(tmp_path)

    assert int(history.samples.last_step[-1]) >= flushed
    assert len(history.marks) >= flushed


def test_a_folder_without_a_history_is_named(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(StoreError, match=r"not the folder of a run: it has no rank-0\.db"):
        read_history(tmp_path)


def test_a_history_that_was_only_begun_is_empty(tmp_path: Path) -> None:
    """Killed between making the file and making its tables."""
    sqlite3.connect(tmp_path / "rank-0.db").execute("PRAGMA journal_mode = WAL").connection.close()
    (tmp_path / "rank-0.db").touch()

    history = read_history(tmp_path)

    assert (history.sessions, len(history.samples), history.summary) == ((), 0, None)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    """No traceback for a damaged file."""
    (tmp_path / "rank-0.db").write_bytes(b"not a database" * 100)

    with pytest.raises(StoreError, match="cannot be read"):
        read_history(tmp_path)


def test_a_history_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Nothing is overwritten that this version does not understand."""
    filled(tmp_path, 5)
    connection = sqlite3.connect(tmp_path / "rank-0.db")
    connection.execute("UPDATE meta SET value = '99'")
    connection.commit()
    connection.close()

    with pytest.raises(StoreError, match="schema 99"):
        RunStore(tmp_path)


def test_a_change_of_clock_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    """As for any other write: whoever calls it expects that one."""
    store = RunStore(tmp_path)
    store.begin(began=1e9, first_step=0, facts={})
    store._connection.close()

    with pytest.raises(StoreError, match="cannot be written"):
        store.begin_again()
