"""The file of a ledger: its tables, its lock, and who may open it."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
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

NO_LOCKS = "disk I/O error"
"""What SQLite says where a drive knows no locks."""

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


_MORE_THAN_DATA = """
SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')
OR (type = 'index' AND sql IS NOT NULL)
OR (type = 'table' AND name NOT IN ('images', 'recipes') AND name NOT LIKE 'sqlite_%')
OR sql LIKE 'CREATE VIRTUAL%'
"""
"""Views and triggers are programs, which may never end."""

_TEXTS = ("name", "source", "state", "error", "note", "files")
_NUMBERS = ("seconds", "objects", "quality", "size", "modified", "recipe")

_WRONG_TYPES = "SELECT 1 FROM images WHERE " + " OR ".join(
    [f"typeof({column}) != 'text'" for column in _TEXTS]
    + [f"typeof({column}) IN ('text', 'blob')" for column in _NUMBERS]
    + ["typeof(digest) NOT IN ('text', 'null')"]
)


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
            _refuse_links(out)
            locks = stack.enter_context(_locked(out))
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{out} cannot be written to: {reason}.") from error
        try:
            ledger = _checked(out / LEDGER, locks=locks)
        except OverwriteError:
            if not anew:
                raise
            for ending in ("", "-wal", "-shm"):
                (out / f"{LEDGER}{ending}").unlink(missing_ok=True)
            ledger = _checked(out / LEDGER, locks=locks)
        stack.callback(ledger.close)
        yield ledger


def _checked(path: Path, *, locks: bool) -> Ledger:
    """Open a ledger whose every row stays in its folder."""
    ledger = Ledger(_connect(path, locks=locks))
    try:
        deque(ledger.rows(), maxlen=0)
    except BaseException:
        ledger.close()
        raise
    return ledger


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
    try:
        connection = _opened(path, locks=True)
    except sqlite3.OperationalError as error:
        if NO_LOCKS in str(error):
            connection = _opened(path, locks=False)
        elif _is_quiet(path):
            connection = _opened(path, locks=True, still=True)
        else:
            raise _refusal(path, error) from error
    with closing(connection):
        _check(connection, path)
        yield LedgerReader(connection)


def _is_quiet(path: Path) -> bool:
    """Tell whether nobody may write where a ledger lies, and no run has left it open.

    SQLite itself would write beside it, to read it: not on a backup or a share that
    can only be read.
    """
    left_open = path.with_name(f"{path.name}-wal").exists()
    return not left_open and not os.access(path.parent, os.W_OK)


def _opened(path: Path, *, locks: bool, still: bool = False) -> sqlite3.Connection:
    """Open a ledger to read it, and see whether that works."""
    mode = "mode=ro&immutable=1" if still else "mode=ro"
    connection = sqlite3.connect(_address(path, mode, locks), uri=True, timeout=10)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise _refusal(path, error) from error
    return connection


def _address(path: Path, mode: str, locks: bool) -> str:
    """Return a path as SQLite takes it, with options."""
    return f"{path.absolute().as_uri()}?{mode}{'' if locks else '&nolock=1'}"


@contextmanager
def _locked(out: Path) -> Iterator[bool]:
    """Refuse a second run; the system frees the lock when the process ends.

    Yields
    ------
    bool
        Whether the drive knows locks at all: some of clusters do not.
    """
    # The lock of an empty database of its own: SQLite knows how every system locks,
    # and the ledger itself stays open to readers.
    with closing(sqlite3.connect(out / LOCK, timeout=0, isolation_level=None)) as lock:
        locks = True
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if NO_LOCKS in str(error):
                locks = False
            elif "locked" not in str(error):
                raise
            else:
                raise InputError(
                    f"Another run is writing to {out}. Wait for its end, or choose "
                    "another folder."
                ) from error
        yield locks


def _connect(path: Path, *, locks: bool) -> sqlite3.Connection:
    """Open a ledger to write it, with its tables."""
    # one job uses it, but not always from the same thread
    connection = sqlite3.connect(
        _address(path, "mode=rwc", locks),
        uri=True,
        timeout=30,
        isolation_level=None,
        check_same_thread=False,
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
            raise _refusal(path, error) from error
        raise
    return connection


def _refuse_links(out: Path) -> None:
    """Refuse to write a ledger through a link, to wherever it leads."""
    for name in (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", LOCK):
        path = out / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(
                f"{path} is not a file of napari-medseg but a link or something else. "
                "Remove it, or choose another folder."
            )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no ledger, one of a later version, or more than data."""
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version <= SCHEMA:
            if connection.execute(_MORE_THAN_DATA).fetchone():
                raise sqlite3.DatabaseError("it has parts that no ledger has")
            connection.execute(f"SELECT {COLUMNS} FROM images LIMIT 1").fetchone()
            if connection.execute(_WRONG_TYPES).fetchone():
                raise sqlite3.DatabaseError("a value is of the wrong type")
    except sqlite3.DatabaseError as error:
        raise _refusal(path, error) from error
    if version > SCHEMA:
        raise InputError(
            f"{path} was written by a later version of napari-medseg. Update "
            "napari-medseg, or choose another folder."
        )


def _refusal(path: Path, error: sqlite3.Error) -> InputError:
    """Say that a ledger cannot be opened, or that a file is no ledger."""
    if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
        return InputError(
            f"{path} cannot be opened ({error}). Check the free space and the rights "
            "of the folder, or choose another folder."
        )
    return OverwriteError(
        f"{path}, which says what was done in this folder, cannot be read ({error}). "
        "Choose another folder, or ask for everything to be done again (--overwrite)."
    )
