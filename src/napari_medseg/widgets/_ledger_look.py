"""What a table shows of a ledger: read, filtered and sorted away from the window."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError, MedsegError
from napari_medseg.batch import LEDGER, read_ledger
from napari_medseg.batch.ledger import DONE, FAILED, RUNNING, WAITING, Summary
from napari_medseg.batch.report import REPORT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALL = "all"

FILTERS: Mapping[str, tuple[str, ...]] = {
    ALL: (WAITING, RUNNING, DONE, FAILED),
    FAILED: (FAILED,),
    WAITING: (WAITING, RUNNING),
    DONE: (DONE,),
}
"""What the table can be asked to show: states by word."""

COLUMNS = ("name", "state", "objects", "seconds", "quality")
"""Fields of `Summary` that the table has columns for."""

Row = tuple[Any, ...]
"""What `Summary._make` takes; see `LedgerReader.summaries`."""

_PLACES = {name: place for place, name in enumerate(Summary._fields)}

DIGITS = 20
"""Numbers in names of images have hardly more digits."""

_STATES = (FAILED, RUNNING, WAITING, DONE)
"""States in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the table shall show.

    Attributes
    ----------
    out : Path
        Output folder of a run.
    shown : str
        One of `FILTERS`.
    column : str
        One of `COLUMNS`, to sort by.
    descending : bool
        Whether the largest come first.
    """

    out: Path
    shown: str = ALL
    column: str = "name"
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What a ledger said.

    Attributes
    ----------
    wish : Wish
        What was asked for.
    there : bool
        Whether there is a ledger.
    rows : list of tuple
        The rows to show, in order; each is what `Summary._make` takes.
    counts : mapping of str to int
        How many images are in each state.
    report : bool
        Whether there is a report to look at.
    trouble : str
        Why the ledger cannot be read; mostly empty.
    known : frozenset of str
        Columns of which something is known.
    every : list of tuple
        All rows, by name.
    fingerprint : tuple
        What tells this ledger from a later one.
    """

    wish: Wish
    there: bool = False
    rows: Sequence[Row] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    report: bool = False
    trouble: str = ""
    known: frozenset[str] = frozenset()
    every: Sequence[Row] = ()
    fingerprint: tuple[Any, ...] = ()

    @property
    def open_images(self) -> int:
        """How many images a run would still have to do."""
        return sum(self.counts.get(state, 0) for state in FILTERS[WAITING])

    @property
    def total(self) -> int:
        """How many images the ledger knows."""
        return sum(self.counts.values())


def look_at(wish: Wish, before: Look | None = None) -> Look:
    """Look at a ledger; what has not changed since the last look is not read again.

    Parameters
    ----------
    wish : Wish
        What to show.
    before : Look, optional
        The last look.

    Returns
    -------
    Look
        The same where nothing is new. Errors are told in it.
    """
    report = (wish.out / REPORT).is_file()
    if before is not None and before.wish.out != wish.out:
        before = None
    if not (wish.out / LEDGER).is_file():
        return Look(wish, report=report)
    try:
        with read_ledger(wish.out) as ledger:
            fingerprint = ledger.fingerprint()
            same = before is not None and before.fingerprint == fingerprint
            every = before.every if before and same else list(ledger.summaries())
            counts = ledger.counts()
    except MedsegError as error:
        return Look(wish, report=report, trouble=str(error))
    except sqlite3.Error as error:
        told = f"{wish.out / LEDGER} cannot be read: {error}."
        return Look(wish, report=report, trouble=told)
    if before and same and before.wish == wish and before.report == report:
        return before
    rows = _arranged(every, wish)
    known = frozenset(name for name in COLUMNS if _is_known(name, rows))
    return Look(wish, True, rows, counts, report, "", known, every, fingerprint)


def holds_others(out: Path, inputs: Sequence[Path]) -> bool:
    """Tell whether a folder has results of images that are not among these.

    Parameters
    ----------
    out : Path
        Output folder of a run, or a folder that may become one.
    inputs : sequence of Path
        Files and folders.

    Returns
    -------
    bool
        Judged by the first image of the ledger.
    """
    try:
        with read_ledger(out) as ledger:
            first = next(ledger.summaries(), None)
    except (InputError, sqlite3.Error):
        return False
    if first is None:
        return False
    source = Path(Summary._make(first).source)
    above = (source, *source.parents)
    return not any(item.absolute() in above for item in inputs)


def _is_known(column: str, rows: Sequence[Row]) -> bool:
    place = _PLACES[column]
    return any(row[place] is not None for row in rows)


def _arranged(every: Sequence[Row], wish: Wish) -> list[Row]:
    """Return the rows to show, in order; what is not known comes last."""
    states, name, state = FILTERS[wish.shown], _PLACES["name"], _PLACES["state"]
    rows = [row for row in every if row[state] in states]
    rows.sort(key=lambda row: _natural(row[name]))
    if wish.column == "name":
        return rows[::-1] if wish.descending else rows
    place = _PLACES[wish.column]
    known = [row for row in rows if row[place] is not None]
    known.sort(key=lambda row: _rank(row[place]), reverse=wish.descending)
    return known + [row for row in rows if row[place] is None]


def _rank(value: Any) -> Any:
    """Return what is sorted by: states have their own order."""
    return _STATES.index(value) if isinstance(value, str) else value


def _natural(name: str) -> str:
    """Return what sorts ``img2`` before ``img10``.

    A text, because lists of parts would be so many that Python stops everything to
    look for garbage.
    """
    return re.sub(r"\d+", lambda digits: digits[0].zfill(DIGITS), name.casefold())
