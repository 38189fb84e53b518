"""Read the history of a run, while it runs or after it has ended in any way."""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdwater.budget import Budget, Budgets
from holdwater.errors import StoreError
from holdwater.store.schema import COLUMNS, database_path
from holdwater.timeline.buckets import SERIES, Buckets, join_buckets, no_buckets
from holdwater.units import Bytes


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """One process's part of a run."""

    number: int
    began: float
    """Seconds since 1970."""
    first_step: int
    """The step from which it continued; 0 for the start of a run."""
    facts: dict[str, Any]
    summary: dict[str, Any] | None
    """Its judgement as JSON (schema 1); None if it ended before the first one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An event of a run."""

    session: int
    step: int
    seconds: float
    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """All that is stored of one rank of a run."""

    path: Path
    sessions: tuple[RecordedSession, ...]
    samples: Buckets
    """Samples of all sessions in order; steps of a killed session that a later one repeated are left out."""
    marks: tuple[Mark, ...]
    verdicts: tuple[tuple[int, str], ...]
    """Step and verdict of each judgement."""
    outcomes: tuple[dict[str, Any], ...]
    """What each action did, as a row of the table `outcomes`."""

    @property
    def budgets(self) -> Budgets | None:
        """The budget of each pool; a run of an older version has one; None if none was recorded."""
        return next(
            (found for session in reversed(self.sessions) if (found := _read_budgets(session)) is not None), None
        )

    @property
    def summary(self) -> dict[str, Any] | None:
        """The newest judgement; None if there is none yet."""
        return next((s.summary for s in reversed(self.sessions) if s.summary is not None), None)


def _read_budgets(session: RecordedSession) -> Budgets | None:
    """The budget of each pool that one process kept; None if none was recorded."""
    summary = session.summary or {}
    rows = summary.get("budgets") or session.facts.get("budgets") or {}
    kept = {
        name: Budget(Bytes(int(row["limit_bytes"])), row["origin"], row["reason"]) for name, row in rows.items()
    }
    if "unified" in kept:
        return Budgets(kept["unified"], unified=True)
    if "host" in kept:
        return Budgets(kept["host"], kept.get("device:0"))
    limit = session.facts.get("budget_bytes") or summary.get("budget", {}).get("bytes")  # of an older version
    return Budgets(Budget(Bytes(int(limit)), "given", "the run's own")) if limit else None


def read_history(folder: Path, *, rank: int = 0) -> History:
    """Read the history of a rank.

    Args:
        folder: The folder of the run.
        rank: The rank of the process.

    Returns:
        Everything that was flushed, however the run ended.

    Raises:
        StoreError: There is no history, or it cannot be read.
    """
    path = database_path(folder, rank)
    if not path.is_file():
        raise StoreError(f"{folder} is not the folder of a run: it has no {path.name}")
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise StoreError(f"the history {path} cannot be read: {error}") from error
    try:
        return _read(connection, path)
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise StoreError(f"the history {path} cannot be read: {error}") from error
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Open for reading; on a read-only medium, where the log cannot be opened, as an immutable file."""
    quoted = path.resolve().as_uri()
    connection = sqlite3.connect(f"{quoted}?mode=ro", uri=True, timeout=10)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise
        connection = sqlite3.connect(f"{quoted}?immutable=1", uri=True)
    return connection


def _read(connection: sqlite3.Connection, path: Path) -> History:
    """Read all tables in one consistent view; a writer that was killed early may not have created them."""
    connection.execute("BEGIN")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'summaries'").fetchone() is None:
        return History(path, (), no_buckets(), (), (), ())
    summaries = dict(connection.execute("SELECT session, summary FROM summaries"))
    sessions = tuple(
        RecordedSession(number, began, first, json.loads(facts), _decode(summaries.get(number)))
        for number, began, first, facts in connection.execute("SELECT * FROM sessions ORDER BY id")
    )
    ends = [min((later.first_step for later in sessions[at + 1 :]), default=None) for at in range(len(sessions))]
    samples = [
        _until(read_samples(connection, session.number), end) for session, end in zip(sessions, ends, strict=True)
    ]
    marks = tuple(
        Mark(session, step, seconds, kind, json.loads(facts))
        for session, step, seconds, kind, facts in connection.execute("SELECT * FROM marks ORDER BY rowid")
    )
    verdicts = tuple(connection.execute("SELECT step, kind FROM verdicts ORDER BY rowid"))
    names = ("session", "step", "action", "reason", "freed_bytes", "seconds", "error")
    outcomes = tuple(
        dict(zip(names, row, strict=True)) for row in connection.execute("SELECT * FROM outcomes ORDER BY rowid")
    )
    return History(path, sessions, join_buckets(samples), marks, verdicts, outcomes)


def _decode(text: str | None) -> dict[str, Any] | None:
    """Read a JSON object; None stays None."""
    return None if text is None else dict(json.loads(text))


def _until(buckets: Buckets, end: int | None) -> Buckets:
    """Leave out steps that a later session repeated; it begins with a sample of the step `end`."""
    if end is None:
        return buckets
    keep = buckets.first_step < end
    return Buckets(
        *(
            getattr(buckets, name)[..., keep]
            for name in ("first_step", "last_step", "seconds", "low", "high", "total", "count")
        )
    )


def read_samples(connection: sqlite3.Connection, session: int) -> Buckets:
    """Read the buckets of one session, in the order of their steps."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(samples)")}
    known = (name if name in there else "NULL" for name in COLUMNS)  # an older version read less
    columns = ", ".join(("first_step", "last_step", "seconds", *known))
    rows = connection.execute(
        f"SELECT {columns} FROM samples WHERE session = ? ORDER BY first_step",  # noqa: S608 - our own names
        (session,),
    ).fetchall()
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3 + len(COLUMNS)).T
    low, high, mean = table[3:].reshape(len(SERIES), 3, len(rows)).transpose(1, 0, 2)
    return Buckets(
        first_step=table[0].astype(np.int64),
        last_step=table[1].astype(np.int64),
        seconds=table[2].copy(),
        low=low.copy(),
        high=high.copy(),
        total=np.nan_to_num(mean),
        count=(~np.isnan(mean)).astype(np.int64),  # the mean is stored: each bucket has weight one
    )
