"""The tables of a run's database, one file a rank.

A *session* is one process's part of a run: a run that was killed and resumed has several.
"""

import sqlite3
from pathlib import Path

from holdwater.errors import StoreError
from holdwater.timeline.buckets import SERIES

VERSION = 1
COLUMNS = tuple(f"{series}_{part}" for series in SERIES for part in ("low", "high", "mean"))
"""The columns of a bucket, after session, first_step, last_step and seconds."""

_TABLES = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
  id INTEGER PRIMARY KEY, began REAL NOT NULL, first_step INTEGER NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
  session INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, seconds REAL NOT NULL,
  {", ".join(f"{name} REAL" for name in COLUMNS)}, PRIMARY KEY (session, first_step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
  session INTEGER NOT NULL, step INTEGER NOT NULL, seconds REAL NOT NULL, kind TEXT NOT NULL,
  facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS explanations (
    session INTEGER NOT NULL,
    step INTEGER NOT NULL,
    component TEXT NOT NULL,
    explained REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS verdicts (
  session INTEGER NOT NULL, step INTEGER NOT NULL, kind TEXT NOT NULL, findings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
  session INTEGER NOT NULL, step INTEGER NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
  session INTEGER NOT NULL, step INTEGER NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL,
  freed_bytes INTEGER NOT NULL, seconds REAL NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS summaries (session INTEGER PRIMARY KEY, summary TEXT NOT NULL);
COMMIT;
"""


def database_path(folder: Path, rank: int = 0) -> Path:
    """The database file of a rank."""
    return folder / f"rank-{rank}.db"


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of a new database, or check that an existing one can be extended.

    Args:
        connection: The database.

    Raises:
        StoreError: The database was written by a newer version.
    """
    connection.executescript(_TABLES)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(VERSION),))
    there = {row[1] for row in connection.execute("PRAGMA table_info(samples)")}
    for name in COLUMNS:
        if name not in there:  # a run of an older version, which had fewer readings
            connection.execute(f"ALTER TABLE samples ADD COLUMN {name} REAL")
    (written,) = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if int(written) > VERSION:
        raise StoreError(
            f"this run's database has schema {written}, but this holdwater knows {VERSION} at most; "
            "use the version that wrote it, or a newer one"
        )
