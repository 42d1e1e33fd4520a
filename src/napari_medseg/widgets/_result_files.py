"""An image of a run and its labels, read from their files."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError, LabelClass, MedsegError, default_classes
from napari_medseg.batch import PROVENANCE, read_ledger
from napari_medseg.batch.ledger import DONE, FAILED
from napari_medseg.io.images import read_image
from napari_medseg.io.model_file import read_card
from napari_medseg.io.raw import READER_ERRORS
from napari_medseg.models import bundled
from napari_medseg.models.registry import SPECIALISTS

if TYPE_CHECKING:
    from napari_medseg.batch import LedgerRow
    from napari_medseg.io.images import ImageFile


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """An image of a run and what was made of it.

    Attributes
    ----------
    source : Path
        The image's file.
    image : ImageFile or None
        The image; None where it cannot be read.
    labels : ImageFile or None
        Its labels; None where there are none, or they cannot be read.
    is_objects : bool
        Whether labels are objects, or else classes.
    classes : tuple of LabelClass
        The classes, where they are known.
    model : str
        What made the labels.
    told : str
        What the user should know; mostly empty.
    """

    source: Path
    image: ImageFile | None
    labels: ImageFile | None
    is_objects: bool
    classes: tuple[LabelClass, ...]
    model: str
    told: str


def read_made(out: Path) -> dict[str, Any]:
    """Return how the labels of a folder were made.

    Parameters
    ----------
    out : Path
        Output folder of a run.

    Returns
    -------
    dict
        As `napari_medseg.batch.provenance` writes it; empty where nothing can be
        read.
    """
    try:
        made = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def read_result(out: Path, name: str) -> ResultFiles:
    """Read an image of a run and its labels; large ones stay on the disk.

    Parameters
    ----------
    out : Path
        Output folder of the run.
    name : str
        Name of the image in the ledger.

    Returns
    -------
    ResultFiles
        What can be read, and a sentence on what cannot.

    Raises
    ------
    InputError
        The ledger cannot be read, or does not know the image.
    """
    try:
        with read_ledger(out) as ledger:
            row = ledger.row(name)
    except sqlite3.Error as error:
        raise InputError(f"The ledger in {out} cannot be read: {error}.") from error
    if row is None:
        raise InputError(f"{name} is no longer in the ledger of {out}.")
    told = [_state(row)]
    image, trouble = _read(Path(row.source))
    # what failed has mostly been told by the ledger in the same words
    told += [trouble] if row.state != FAILED else []
    labels, trouble = None, ""
    if row.state == DONE and row.files:
        labels, trouble = _read(out / row.files[0])
    told.append(trouble)
    made = read_made(out)
    model = str(made.get("model_name", ""))
    return ResultFiles(
        Path(row.source),
        image,
        labels,
        row.objects is not None,
        classes_of(made),
        Path(model).stem if model.endswith(".medseg") else model,
        " ".join(filter(None, told)),
    )


def _state(row: LedgerRow) -> str:
    """Say what there is to know of an image besides its labels."""
    if row.state == FAILED:
        return row.error
    if row.state != DONE:
        return f"{row.name} is not segmented yet."
    return row.note


def _read(path: Path) -> tuple[ImageFile | None, str]:
    """Read an image, or say why it cannot be read."""
    try:
        return read_image(path), ""
    except (MedsegError, *READER_ERRORS) as error:
        return None, str(error)


def classes_of(made: dict[str, Any]) -> tuple[LabelClass, ...]:
    """Return names and colours of the classes that a run wrote.

    Parameters
    ----------
    made : dict
        From `read_made`.

    Returns
    -------
    tuple of LabelClass
        In the colours of the model, where that is at hand; empty where the classes
        are not known.
    """
    names = made.get("classes") or []
    if not isinstance(names, list) or not names:
        return ()
    settings = made.get("settings")
    model = str(settings.get("model", "")) if isinstance(settings, dict) else ""
    entry = SPECIALISTS.get(model)
    try:
        card = read_card(bundled.place(entry.file) if entry else Path(model))
    except MedsegError:
        card = None
    if card is not None and [item.name for item in card.classes] == names:
        return card.classes
    usual = default_classes(len(names))
    return tuple(
        LabelClass(str(name), item.colour)
        for name, item in zip(names, usual, strict=True)
    )
