"""The file of a ledger: its tables, its lock, and who may open it."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from napari_medseg._types import InputError, OverwriteError
from napari_medseg.batch.ledger import (
    COLUMNS,
    DONE,
    FAILED,
    LEDGER,
    RUNNING,
    WAITING,
    Ledger,
    LedgerReader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".medseg.lock"
"""Name of the empty file that a run locks; the lock ends with the process."""

SCHEMA = 1
"""Version of the tables that this program writes and reads."""

_TABLES = f"""
CREATE TABLE recipes (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    identity TEXT NOT NULL,
    settings TEXT NOT NULL,
    UNIQUE (identity, settings)
);
CREATE TABLE images (
    name TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('{WAITING}', '{RUNNING}', '{DONE}', '{FAILED}')),
    error TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    seconds REAL,
    objects INTEGER,
    quality REAL,
    size INTEGER,
    modified INTEGER,
    digest TEXT,
    files TEXT NOT NULL DEFAULT '[]',
    recipe INTEGER REFERENCES recipes (id)
);
PRAGMA user_version = {SCHEMA};
"""


@contextmanager
def open_ledger(out: Path, *, anew: bool = False) -> Iterator[Ledger]:
    """Open the ledger of an output folder to write it, alone.

    Parameters
    ----------
    out : Path
        The folder, made if need be.
    anew : bool
        Replace a ledger that cannot be read.

    Yields
    ------
    Ledger
        Of all images that were ever segmented into the folder.

    Raises
    ------
    InputError
        Another run is writing the folder, it cannot be written, or its ledger is
        damaged or of a later version.
    """
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(out))
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{out} cannot be written to: {reason}.") from error
        try:
            ledger = Ledger(_connect(out / LEDGER))
        except InputError:
            if not anew:
                raise
            for ending in ("", "-wal", "-shm"):
                (out / f"{LEDGER}{ending}").unlink(missing_ok=True)
            ledger = Ledger(_connect(out / LEDGER))
        stack.callback(ledger.close)
        yield ledger


@contextmanager
def read_ledger(out: Path) -> Iterator[LedgerReader]:
    """Open the ledger of an output folder to look at it, also while a run goes on.

    Parameters
    ----------
    out : Path
        The folder.

    Yields
    ------
    LedgerReader
        What is noted up to now.

    Raises
    ------
    InputError
        There is no ledger, or it cannot be read.
    """
    path = out / LEDGER
    if not path.is_file():
        raise InputError(f"{path} does not exist: no run has written to this folder.")
    address = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
        _check(connection, path)
        yield LedgerReader(connection)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Refuse a second run; the system frees the lock when the process ends."""
    # The lock of an empty database of its own: SQLite knows how every system locks,
    # and the ledger itself stays open to readers.
    with closing(sqlite3.connect(out / LOCK, timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise InputError(
                f"Another run is writing to {out}. Wait for its end, or choose another "
                "folder."
            ) from error
        yield


def _connect(path: Path) -> sqlite3.Connection:
    """Open a ledger to write it, with its tables."""
    # one job uses it, but not always from the same thread
    connection = sqlite3.connect(
        path, timeout=30, isolation_level=None, check_same_thread=False
    )
    try:
        # Readers do not wait for the writer, and the writer not for them. Where the
        # folder cannot have it (some network drives), SQLite keeps its usual mode.
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last commits, never the file: what they noted is
        # segmented again. FULL would wait for the disk after every image for it.
        connection.execute("PRAGMA synchronous = NORMAL")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
        _check(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _damaged(path, error) from error
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no ledger, or one of a later version."""
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version <= SCHEMA:
            connection.execute(f"SELECT {COLUMNS} FROM images LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    if version > SCHEMA:
        raise InputError(
            f"{path} was written by a later version of napari-medseg. Update "
            "napari-medseg, or choose another folder."
        )


def _damaged(path: Path, error: sqlite3.Error) -> OverwriteError:
    """Say that a file is no ledger."""
    return OverwriteError(
        f"{path}, which says what was done in this folder, cannot be read ({error}). "
        "Choose another folder, or ask for everything to be done again (--overwrite)."
    )
