"""Write the history of a run while it runs: one SQLite file a rank, intact after `kill -9`.

The write-ahead log makes each flush complete or absent, and lets others read meanwhile (SQLite
documentation, "Write-Ahead Logging"). The file's size is bounded: the samples of a session are those of
its timeline, which merges neighbours; those of earlier sessions are thinned when a new one begins.
"""

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdwater.actions.perform import Outcome
from holdwater.attribution.site import Explanation
from holdwater.detectors.verdict import Verdict
from holdwater.errors import StoreError
from holdwater.policy.decision import Decision
from holdwater.signal_errors import not_the_scripts
from holdwater.store.folders import make_folder
from holdwater.store.history import read_samples
from holdwater.store.schema import COLUMNS, create_tables, database_path
from holdwater.timeline.buckets import Buckets, thin
from holdwater.timeline.timeline import CAPACITY, Timeline

log = logging.getLogger("holdwater")

MOST_MARKS = 20_000
"""Most marks of one kind that are kept; the oldest are removed."""

_NAMES = ", ".join(("session", "first_step", "last_step", "seconds", *COLUMNS))
_INSERT = f"INSERT OR REPLACE INTO samples ({_NAMES}) VALUES (?, ?, ?, ?{', ?' * len(COLUMNS)})"  # noqa: S608


class RunStore:
    """The writer of one rank's history. Rows wait in memory until `flush`.

    Any thread may write, one at a time. A process forked from the one that opened it writes nothing: SQLite
    forbids a connection that two processes use.
    """

    def __init__(self, folder: Path, *, rank: int = 0, kept: bool = True) -> None:
        """Open the database of a run's folder, created if it does not exist.

        Args:
            folder: The folder of the run.
            rank: The number of this process among those of the run.
            kept: Whether it is written to the folder; otherwise it lies in memory, and is lost.

        Raises:
            StoreError: The folder or the database cannot be written.
        """
        self.path = database_path(folder, rank)
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._summary: list[tuple[str, tuple[Any, ...]]] = []
        self._session = 0
        self._written = 0
        self._generation = 0
        self._pid, self._writing = os.getpid(), threading.Lock()
        try:
            if kept:
                make_folder(folder)
            database = self.path if kept else ":memory:"
            self._connection = sqlite3.connect(database, isolation_level=None, timeout=10, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA journal_size_limit = 4194304")
            self._connection.execute("PRAGMA cache_size = -1024")
            create_tables(self._connection)
        except not_the_scripts(OSError, sqlite3.Error) as error:
            raise StoreError(f"the history {self.path} cannot be written: {error}") from error

    def begin(self, *, began: float, first_step: int, facts: Mapping[str, Any]) -> None:
        """Begin a session.

        Args:
            began: Seconds since 1970.
            first_step: The step before the session's first.
            facts: Facts on this process: command, versions, budget.

        Raises:
            StoreError: The database cannot be written.
        """
        try:
            self._thin_earlier_sessions()
            cursor = self._connection.execute(
                "INSERT INTO sessions (began, first_step, facts) VALUES (?, ?, ?)",
                (began, first_step, json.dumps(facts, default=str)),
            )
        except sqlite3.Error as error:
            raise StoreError(f"the history {self.path} cannot be written: {error}") from error
        self._session = int(cursor.lastrowid or 0)
        self._written = self._generation = 0

    def mark(self, step: int, seconds: float, kind: str, facts: Mapping[str, Any]) -> None:
        """Add an event: an epoch, an evaluation, a checkpoint."""
        text = json.dumps({str(name): value for name, value in facts.items()}, default=str, skipkeys=True)
        self._queue("marks", (self._session, step, seconds, str(kind), text))

    def verdict(self, verdict: Verdict) -> None:
        """Add a judgement."""
        findings = json.dumps([finding.as_row() for finding in verdict.findings])
        self._queue("verdicts", (self._session, verdict.step, verdict.kind, findings))

    def explanation(self, component: str, explanation: Explanation) -> None:
        """Add the explanation of a component's growth."""
        body = json.dumps(explanation.as_json())
        self._queue("explanations", (self._session, explanation.step, component, explanation.explained, body))

    def decision(self, decision: Decision) -> None:
        """Add a decision."""
        self._queue("decisions", (self._session, decision.step, decision.action, decision.reason))

    def outcome(self, outcome: Outcome) -> None:
        """Add an action's outcome."""
        row = (outcome.step, outcome.action, outcome.reason, outcome.freed_bytes, outcome.seconds)
        self._queue("outcomes", (self._session, *row, outcome.error))

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Set the judgement of the session so far; only the newest is written."""
        statement = "INSERT OR REPLACE INTO summaries VALUES (?, ?)"
        self._summary = [(statement, (self._session, json.dumps(summary)))]

    def begin_again(self) -> None:
        """Delete the samples and judgements of this session: it is judged by another clock now.

        Raises:
            StoreError: The database cannot be written.
        """
        try:
            for table in ("samples", "verdicts"):
                self._connection.execute(f"DELETE FROM {table} WHERE session = ?", (self._session,))  # noqa: S608
        except sqlite3.Error as error:
            raise StoreError(f"the history {self.path} cannot be written: {error}") from error
        self._waiting = [(statement, row) for statement, row in self._waiting if "INTO verdicts" not in statement]
        self._written = self._generation = 0

    def flush(self, timeline: Timeline) -> None:
        """Write pending rows, and the buckets that are new since the last flush, in one transaction.

        Args:
            timeline: The history of this session.

        Raises:
            StoreError: The database cannot be written (such as a full disk); pending rows are kept.
        """
        if os.getpid() == self._pid:
            with self._writing:
                self._flush(timeline)

    def _flush(self, timeline: Timeline) -> None:
        """As `flush`."""
        afresh = timeline.generation != self._generation
        buckets = timeline.buckets(0 if afresh else max(self._written - 1, 0))  # the last may have been amended
        try:
            self._connection.execute("BEGIN")
            if afresh:
                self._connection.execute("DELETE FROM samples WHERE session = ?", (self._session,))
            self._connection.executemany(_INSERT, sample_rows(self._session, buckets))
            for statement, row in (*self._waiting, *self._summary):
                self._connection.execute(statement, row)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"the history {self.path} cannot be written: {error}") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._waiting.clear()
        self._written, self._generation = timeline.closed, timeline.generation

    def close(self) -> None:
        """Close the database; rows that were not flushed are lost."""
        if os.getpid() == self._pid:
            with self._writing:
                self._connection.close()

    def _queue(self, table: str, row: tuple[Any, ...]) -> None:
        """Keep a row until the next flush; a store that cannot write keeps the newest ones only."""
        if len(self._waiting) >= MOST_MARKS:
            del self._waiting[: MOST_MARKS // 2]
        places = ", ".join("?" * len(row))
        values = tuple(_storable(value) if isinstance(value, str) else value for value in row)
        self._waiting.append((f"INSERT OR REPLACE INTO {table} VALUES ({places})", values))  # noqa: S608

    def _thin_earlier_sessions(self) -> None:
        """Thin the samples of all earlier sessions to the size of one timeline."""
        (rows,) = self._connection.execute("SELECT count(*) FROM samples").fetchone()
        sessions = [row[0] for row in self._connection.execute("SELECT id FROM sessions ORDER BY id")]
        if rows > CAPACITY:
            for session in sessions:
                buckets = thin(read_samples(self._connection, session), max(CAPACITY // (2 * len(sessions)), 1))
                self._connection.execute("BEGIN")
                self._connection.execute("DELETE FROM samples WHERE session = ?", (session,))
                self._connection.executemany(_INSERT, sample_rows(session, buckets))
                self._connection.execute("COMMIT")
        for table in ("marks", "verdicts", "explanations", "decisions", "outcomes"):
            newest = f"SELECT max(rowid) FROM {table}"  # noqa: S608 - our own names
            self._connection.execute(f"DELETE FROM {table} WHERE rowid <= ({newest}) - ?", (MOST_MARKS,))  # noqa: S608


def _storable(text: str) -> str:
    """Text without characters that UTF-8 cannot encode, such as parts of file names in another encoding."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def sample_rows(session: int, buckets: Buckets) -> list[list[float]]:
    """Write buckets as rows of the table `samples`; SQLite stores NaN (not read) as NULL."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = buckets.total / buckets.count
    parts = np.stack((buckets.low, buckets.high, means), axis=1)
    keys = (np.full(len(buckets), session), buckets.first_step, buckets.last_step, buckets.seconds)
    table = np.concatenate((np.stack(keys).astype(np.float64), parts.reshape(len(COLUMNS), len(buckets))))
    rows: list[list[float]] = table.T.tolist()
    return rows


def open_store(folder: Path, *, rank: int = 0) -> RunStore:
    """The history of a script, which needs none: in memory, with a warning, if it cannot be written.

    Args:
        folder: The folder of the run.
        rank: The number of this process among those of the run.
    """
    try:
        return RunStore(folder, rank=rank)
    except StoreError as error:
        log.warning("%s; the run goes on without a history", error)
        return RunStore(folder, rank=rank, kept=False)


def amend_summary(folder: Path, summary: Mapping[str, Any], *, rank: int = 0) -> None:
    """Replace the judgement of a run's last process by that of the whole run.

    Args:
        folder: The folder of the run.
        summary: As JSON (schema 1).
        rank: The rank of the process.

    Raises:
        StoreError: The database cannot be written.
    """
    path = database_path(folder, rank)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            (newest,) = connection.execute("SELECT max(session) FROM summaries").fetchone()
            connection.execute("UPDATE summaries SET summary = ? WHERE session = ?", (json.dumps(summary), newest))
    except sqlite3.Error as error:
        raise StoreError(f"the history {path} cannot be written: {error}") from error
