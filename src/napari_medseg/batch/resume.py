"""What is still to be done in a folder where earlier runs did a part."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import (
    InputError,
    Job,
    OverwriteError,
    Progress,
    RedoError,
)
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.ledger import DONE
from napari_medseg.batch.outputs import output_files
from napari_medseg.batch.stamps import digest, stamp
from napari_medseg.io.containers import file_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePosixPath

    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.ledger import Ledger, LedgerRow, Recipe
    from napari_medseg.batch.settings import BatchSettings

STEP = 100
"""Images that are looked at between two reports."""


@dataclass(frozen=True)
class Folder:
    """The output folder of a run, and what may be done in it.

    Attributes
    ----------
    out : Path
        The folder.
    settings : BatchSettings
        What is written there.
    redo : bool
        Do again what was made by another model or other settings.
    overwrite : bool
        Do everything again, and replace labels that no run has written.
    command : str
        The command that the user gave, for the provenance.
    """

    out: Path
    settings: BatchSettings
    redo: bool = False
    overwrite: bool = False
    command: str = ""

    def files_of(self, name: PurePosixPath) -> list[Path]:
        """Return what is written for an image."""
        return [self.out / file for file in output_files(name, self.settings)]


@dataclass(frozen=True)
class Due:
    """What became of the images of a plan up to now.

    Attributes
    ----------
    todo : list of Work
        Images that are missing, changed, failed, or asked for again.
    there : list of Work
        Images whose results are there.
    """

    todo: list[Work] = field(default_factory=list)
    there: list[Work] = field(default_factory=list)


def check_targets(work: Sequence[Work], folder: Folder) -> None:
    """Refuse results in the place of an image.

    Parameters
    ----------
    work : sequence of Work
        The images.
    folder : Folder
        Where the results go.

    Raises
    ------
    InputError
        A result of an image would replace an image.
    """
    sources = {_place(file_of(item.source)) for item in work}
    for item in work:
        for target in folder.files_of(item.name):
            if _place(target) in sources:
                raise InputError(
                    f"The labels of {item.source} would replace the image {target}; "
                    "choose another folder for the output."
                )


def _place(path: Path) -> str:
    """Return what is the same for all spellings of a path."""
    # resolve() raises at a link to itself, which the worker tells of
    return os.path.realpath(path).casefold()


def find_due(
    work: Sequence[Work], ledger: Ledger, recipe: Recipe, folder: Folder
) -> Job[Due]:
    """Tell which images are still to be done.

    Parameters
    ----------
    work : sequence of Work
        The images.
    ledger : Ledger
        Of the output folder.
    recipe : Recipe
        Of the run.
    folder : Folder
        Where the results go, and what may be done there.

    Yields
    ------
    Progress
        While images are looked at.

    Returns
    -------
    Due
        What is to be done, and what is there.

    Raises
    ------
    RedoError, OverwriteError
        The folder holds labels that were made otherwise, or by others, and it was
        not asked to replace them.
    """
    out, overwrite = folder.out, folder.overwrite
    if not (folder.redo or overwrite):
        _refuse_mixture(ledger, recipe, out)
    number = ledger.number_of(recipe)
    due = Due()
    for index, item in enumerate(work):
        if index % STEP == 0:
            yield Progress(index, len(work), "looking for what is to be done")
        row = ledger.row(str(item.name))
        if row is None and not overwrite:
            refuse_foreign(item, folder)
        whole = row is not None and not overwrite and _is_whole(row, number, out)
        if row is not None and folder.settings.references is not None:
            # a note says why there is no quality; without one it was not asked for
            whole = whole and (row.quality is not None or bool(row.note))
        if row is not None and whole and _is_unchanged(item, row, ledger):
            due.there.append(item)
        else:
            due.todo.append(item)
    return due


def refuse_foreign(work: Work, folder: Folder) -> None:
    """Refuse to replace files that no run has written.

    Parameters
    ----------
    work : Work
        An image that the ledger does not know.
    folder : Folder
        Where the results go.

    Raises
    ------
    OverwriteError
        One of its files is there.
    """
    for target in folder.files_of(work.name):
        if target.exists():
            raise OverwriteError(
                f"{target} is there already, and no run of napari-medseg wrote it. "
                "Choose another folder, or ask for it to be overwritten (--overwrite)."
            )


def _refuse_mixture(ledger: Ledger, recipe: Recipe, out: Path) -> None:
    """Refuse to add to labels that were made otherwise."""
    others = ledger.other_recipes(recipe)
    if not others:
        return
    models = {
        f"{each.model} before it was changed"
        if each.model == recipe.model
        else each.model
        for each in others
        if each.made_of != recipe.made_of
    }
    made = f"another model ({', '.join(sorted(models))})" if models else ""
    raise RedoError(
        f"{out} holds labels that were made by {made or 'other settings'}. Choose "
        "another folder, or ask for them to be made again (--redo)."
    )


def _is_whole(row: LedgerRow, recipe: int, out: Path) -> bool:
    """Tell whether an image was done by a recipe, and all its files are there."""
    if row.state != DONE or row.recipe != recipe:
        return False
    return all((out / name).exists() for name in row.files)


def _is_unchanged(work: Work, row: LedgerRow, ledger: Ledger) -> bool:
    """Tell whether an image is the one that was segmented."""
    try:
        found = stamp(work.source)
        same = (found.size, found.modified) == (row.size, row.modified)
        # a copy or a touched file has another date; its content decides
        if not same and (found.size != row.size or digest(work.source) != row.digest):
            return False
    except OSError:
        return False  # the worker says what is wrong with it
    source = readable(work.source)
    if not same or source != row.source:
        ledger.moved(row.name, source, found.size, found.modified)
    return True


def await_images(work: Sequence[Work], ledger: Ledger) -> None:
    """Note that images are to be segmented.

    Parameters
    ----------
    work : sequence of Work
        The images.
    ledger : Ledger
        Of the output folder.
    """
    ledger.await_images((str(item.name), readable(item.source)) for item in work)


def forget_lost(work: Sequence[Work], ledger: Ledger) -> None:
    """Remove images that were never done and are no longer there.

    Parameters
    ----------
    work : sequence of Work
        The images that are there.
    ledger : Ledger
        Of the output folder.
    """
    here = {str(item.name) for item in work}
    lost = [
        row.name
        for row in ledger.rows()
        if row.state != DONE
        and not row.files
        and row.name not in here
        and not file_of(Path(row.source)).exists()
    ]
    ledger.forget(lost)
