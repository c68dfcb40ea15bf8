"""The SQLite file of a store: opened, recognised, and its faults told in one sentence."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError

__all__ = ["SCHEMA", "connect", "faults_told"]

SCHEMA = 1
"""The version of the tables that this canao writes, and the newest it reads."""

# "cnao": tells our files from other programs'.
_APPLICATION_ID = 0x636E616F
_BUSY_SECONDS = 30.0
_TABLES = """
CREATE TABLE timings (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    added TEXT NOT NULL,
    device TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    emulated INTEGER NOT NULL CHECK (emulated IN (0, 1)),
    protocol INTEGER NOT NULL,
    target TEXT NOT NULL,
    threads INTEGER NOT NULL,
    seq_len INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    precision TEXT NOT NULL,
    module TEXT NOT NULL,
    median_ms REAL NOT NULL,
    relative REAL,
    stable INTEGER NOT NULL CHECK (stable IN (0, 1)),
    architecture TEXT,
    recipe TEXT,
    environment TEXT NOT NULL,
    samples_ms TEXT NOT NULL,
    dispatches TEXT NOT NULL,
    measurement TEXT NOT NULL
);
CREATE INDEX timings_by_device ON timings (emulated, protocol, fingerprint);
"""


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a store, made if it is not there and is to be written.

    A row that was committed survives whatever happens to the process: the journal is a
    write-ahead log, synchronised at each commit. Raises InputError if the file is no store,
    is newer than this canao, is damaged, or may not be written.
    """
    if not write and not path.exists():
        raise InputError(f"there is no timing store {path}: name one that bench --store wrote")
    if path.is_dir():
        raise InputError(f"{path} is a directory, not a timing store: name a file")
    with faults_told(path):
        connection = _open(path, write)
        try:
            if not _is_ready(connection, path) and write:
                _create(connection, path)
            elif write:
                _use_log(connection)
        except BaseException:
            connection.close()
            raise
    return connection


@contextlib.contextmanager
def faults_told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into InputError, in a sentence that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "not a database" in text:
            told = f"{path} is not a timing store, not even an SQLite file: name another file"
        elif "malformed" in text or "corrupt" in text:
            told = f"the timing store {path} is damaged ({text}): use a copy of it, or start anew"
        elif "readonly" in text:
            told = f"the timing store {path} may only be read: make it writable, or name another"
        elif "locked" in text or "busy" in text:
            told = f"the timing store {path} is in use by another process: try again later"
        elif "unable to open" in text:
            told = f"the timing store {path} cannot be opened: check the path and its permissions"
        else:
            told = f"the timing store {path} fails ({text}): use a copy of it, or start anew"
        raise InputError(told) from error


def _open(path: Path, write: bool) -> sqlite3.Connection:
    def opened(options: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{path.resolve().as_uri()}?{options}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
        )

    if write:
        connection = opened("mode=rwc")
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    connection = opened("mode=ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        # A log can only be shared where its directory may be written; on a read-only disk nobody
        # writes, so that the file may be taken as it is.
        connection.close()
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise
        connection = opened("mode=ro&immutable=1")
    return connection


def _is_ready(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file has our tables; raises InputError if it has something else."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == 0 and version == 0 and empty:
        return False
    if application != _APPLICATION_ID:
        raise InputError(f"{path} is an SQLite file, but not a timing store: name another file")
    if version > SCHEMA:
        raise InputError(
            f"the timing store {path} has schema {version}, and this canao reads none newer than "
            f"{SCHEMA}: update canao"
        )
    return True


def _create(connection: sqlite3.Connection, path: Path) -> None:
    _use_log(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ready(connection, path):  # another process may have been faster
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _use_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait by itself for whoever changes the journal at the same moment.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
