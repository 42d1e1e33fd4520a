"""The ledger of a folder: what became of each image, on disk after every image.

It is an SQLite file in the output folder. One run writes it; others, such as a form
that shows how far the run is, read it at the same time.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_medseg._config import to_dict
from napari_medseg._types import JobError, OverwriteError
from napari_medseg.batch.names import leads_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_medseg.batch.settings import BatchSettings

LEDGER = "medseg.sqlite"
"""Name of the ledger in the output folder."""

PAGE = 1000
"""Rows that are read at a time."""

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
"""What an image can be."""

COLUMNS = (
    "name, source, state, error, note, seconds, objects, quality, size, modified, "
    "digest, files, recipe"
)
"""Columns of the images."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What the ledger knows of one image.

    Attributes
    ----------
    name : str
        Path of its outputs in the output folder, without suffix and with ``/``;
        unlike that of any other image.
    source : str
        The image.
    state : {"waiting", "running", "done", "failed"}
        What became of it.
    error : str
        Why it failed; else empty.
    note : str
        What a user should know of it (memory ran out, say); mostly empty.
    seconds : float or None
        Time it took.
    objects : int or None
        Objects found, all slices together; None where classes were written.
    quality : float or None
        Predicted quality; None where it was not estimated.
    size : int or None
        Bytes of the image.
    modified : int or None
        When the image was last changed, in nanoseconds since 1970.
    digest : str or None
        SHA-256 of the image.
    files : tuple of str
        What was written, relative to the output folder, with ``/``; of an image
        that waits or failed, what an earlier run wrote.
    recipe : int or None
        Which model and settings made the files.
    """

    name: str
    source: str
    state: str = WAITING
    error: str = ""
    note: str = ""
    seconds: float | None = None
    objects: int | None = None
    quality: float | None = None
    size: int | None = None
    modified: int | None = None
    digest: str | None = None
    files: tuple[str, ...] = ()
    recipe: int | None = None


class Summary(NamedTuple):
    """What a list of thousands shows of each image; see `LedgerRow`."""

    name: str
    source: str
    state: str = WAITING
    error: str = ""
    note: str = ""
    seconds: float | None = None
    objects: int | None = None
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the results of an image depend on, apart from the image.

    Attributes
    ----------
    model : str
        The model as the user named it, for messages.
    identity : str
        What tells the model from every other.
    settings : str
        Settings that change results, as JSON.
    """

    model: str
    identity: str
    settings: str

    @classmethod
    def of(cls, settings: BatchSettings, identity: str) -> Recipe:
        """Return the recipe of a run.

        Parameters
        ----------
        settings : BatchSettings
            Of the run.
        identity : str
            What tells the segmenter from every other.

        Returns
        -------
        Recipe
            Where it was computed does not count, so that a run that was begun on one
            computer can be ended on another.
        """
        values = to_dict(settings)
        apart = ("model", "device", "base", "references", "reference_masks")
        # the identity tells how images are seen
        for name in (*apart, "alone", "mirrored"):
            del values[name]
        values["formats"] = sorted(values["formats"])
        for name in ("masks", "channels"):
            if not values[name]:
                del values[name]  # runs of earlier versions did not speak of it
        if settings.objects is None:
            values["classes"] = to_dict(settings.labels)
        return cls(settings.model, identity, json.dumps(values, sort_keys=True))

    @property
    def made_of(self) -> str:
        """What tells the model from others, however it sees images."""
        return self.identity.partition(", ")[0]

    def is_like(self, other: Recipe) -> bool:
        """Tell whether another recipe gives the same results."""
        return (self.identity, self.settings) == (other.identity, other.settings)


class LedgerReader:
    """The ledger of an output folder, to look at.

    Parameters
    ----------
    connection : sqlite3.Connection
        To the file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, state: str | None = None) -> Iterator[LedgerRow]:
        """Give the rows by name, some at a time, so that a run may go on meanwhile.

        Parameters
        ----------
        state : str, optional
            Only the images in this state.

        Yields
        ------
        LedgerRow
            One an image.
        """
        for page in self._pages(COLUMNS, state):
            yield from map(_row, page)

    def summaries(self) -> Iterator[tuple[Any, ...]]:
        """Give what a list shows of each image, as `rows` does and much quicker.

        Yields
        ------
        tuple
            What `Summary._make` takes, one an image. Plain tuples of texts and numbers
            are nothing to Python's garbage collector, which would stop a viewer for
            the better part of a second to look through thousands of objects.
        """
        for page in self._pages(", ".join(Summary._fields), None):
            yield from page

    def _pages(
        self, columns: str, state: str | None
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Give the rows by name, a page at a time; the name is the first column."""
        last = ""
        while True:
            page = self._connection.execute(
                f"SELECT {columns} FROM images WHERE name > ?"
                " AND (? IS NULL OR state = ?) ORDER BY name LIMIT ?",
                (last, state, state, PAGE),
            ).fetchall()
            if not page:
                return
            yield page
            last = page[-1][0]

    def fingerprint(self) -> tuple[Any, ...]:
        """Return figures that are others once something has changed."""
        query = (
            "SELECT state, count(*), total(seconds), total(objects), "
            "total(length(error)), max(rowid) FROM images GROUP BY state"
        )
        return tuple(self._connection.execute(query).fetchall())

    def row(self, name: str) -> LedgerRow | None:
        """Return the row of a name, or None where there is none."""
        found = self._connection.execute(
            f"SELECT {COLUMNS} FROM images WHERE name = ?", (name,)
        ).fetchone()
        return _row(found) if found else None

    def counts(self) -> dict[str, int]:
        """Return how many images are in each state."""
        found = dict.fromkeys((WAITING, RUNNING, DONE, FAILED), 0)
        query = "SELECT state, count(*) FROM images GROUP BY state"
        return found | dict(self._connection.execute(query).fetchall())

    def names(self) -> dict[str, str]:
        """Return the name of each image by its source."""
        query = "SELECT source, name FROM images"
        found = dict(self._connection.execute(query).fetchall())
        for name in filter(leads_out, found.values()):
            raise foreign_names(name)
        return found

    def other_recipes(self, recipe: Recipe) -> list[Recipe]:
        """Return the recipes of all files in the folder but those of one."""
        query = (
            "SELECT model, identity, settings FROM recipes WHERE id IN "
            "(SELECT recipe FROM images WHERE files != '[]')"
        )
        every = [Recipe(*row) for row in self._connection.execute(query)]
        return [each for each in every if not each.is_like(recipe)]


class Ledger(LedgerReader):
    """The ledger of an output folder, to write; get it from `ledger_file.open_ledger`.

    Every method that changes it is one transaction.
    """

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def number_of(self, recipe: Recipe) -> int:
        """Return the number of a recipe, a new one where it was never used."""
        values = (recipe.model, recipe.identity, recipe.settings)
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO recipes (model, identity, settings) "
                "VALUES (?, ?, ?)",
                values,
            )
            (number,) = self._connection.execute(
                "SELECT id FROM recipes WHERE identity = ? AND settings = ?", values[1:]
            ).fetchone()
        return int(number)

    def await_images(self, images: Iterable[tuple[str, str]]) -> None:
        """Note names and sources of images that are to be segmented.

        Parameters
        ----------
        images : iterable of (str, str)
            Name and source of each. What was written of it earlier stays noted.
        """
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO images (name, source, state) VALUES (?, ?, 'waiting') "
                "ON CONFLICT (name) DO UPDATE SET source = excluded.source, "
                "state = 'waiting', error = ''",
                images,
            )

    def start(self, name: str) -> None:
        """Note that an image is being segmented."""
        query = "UPDATE images SET state = 'running' WHERE name = ?"
        with self._transaction():
            self._connection.execute(query, (name,))

    def finish(self, row: LedgerRow) -> None:
        """Note what became of an image; of one that failed, earlier files stay noted.

        Parameters
        ----------
        row : LedgerRow
            Of a name that is there.
        """
        values: dict[str, Any] = {
            column: getattr(row, column) for column in COLUMNS.split(", ")
        }
        values["files"] = json.dumps(row.files, ensure_ascii=False)
        kept = ("name", "files", "recipe") if row.state == FAILED else ("name",)
        changes = ", ".join(f"{name} = :{name}" for name in values if name not in kept)
        with self._transaction():
            query = f"UPDATE images SET {changes} WHERE name = :name"
            self._connection.execute(query, values)

    def moved(self, name: str, source: str, size: int, modified: int) -> None:
        """Note that an image with the same content is elsewhere, or has a new date."""
        with self._transaction():
            self._connection.execute(
                "UPDATE images SET source = ?, size = ?, modified = ? WHERE name = ?",
                (source, size, modified, name),
            )

    def forget(self, names: Iterable[str]) -> None:
        """Remove images."""
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM images WHERE name = ?", ((name,) for name in names)
            )

    def forget_qualities(self) -> None:
        """Forget how good results were thought to be, so that they are judged anew."""
        with self._transaction():
            self._connection.execute(
                "UPDATE images SET quality = NULL, note = '' WHERE quality IS NOT NULL"
            )

    def interrupted(self) -> list[str]:
        """Let the images that were being segmented when a run ended wait again.

        Returns
        -------
        list of str
            Their names.
        """
        names = [row.name for row in self.rows(RUNNING)]
        query = "UPDATE images SET state = 'waiting' WHERE state = 'running'"
        with self._transaction():
            self._connection.execute(query)
        return names

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise JobError(
                f"The ledger ({LEDGER}) cannot be written: {error}. Check the free "
                "space and the rights of the output folder. What was done is noted; "
                "the same command goes on."
            ) from error


def _row(values: tuple[Any, ...]) -> LedgerRow:
    columns = dict(zip(COLUMNS.split(", "), values, strict=True))
    try:
        files = json.loads(columns["files"])
        told = isinstance(files, list) and all(isinstance(each, str) for each in files)
    except (TypeError, ValueError, RecursionError):
        told = False
    if not told or any(map(leads_out, (columns["name"], *files))):
        raise foreign_names(columns["name"])
    return LedgerRow(**columns | {"files": tuple(files)})


def foreign_names(name: str) -> OverwriteError:
    """Return the error for a ledger that speaks of files elsewhere.

    Parameters
    ----------
    name : str
        Of the image.
    """
    return OverwriteError(
        f"The ledger ({LEDGER}) speaks of results outside of its folder ({name!r:.80});"
        " no run of napari-medseg wrote that. Choose another folder, or ask for "
        "everything to be done again (--overwrite)."
    )
