"""Where a run keeps what its files for all images are made of."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

PARTS = ".medseg"
"""Folder in the output folder; hidden, because people have no use for it."""

OBJECTS, CLASSES, IMAGES = ".objects.csv", ".classes.csv", ".images.csv"
"""Rows of the tables."""

COCO = ".coco.jsonl"
"""Images and objects of the COCO file."""

THUMBNAIL = ".webp"
"""Picture for the report."""


def part_path(name: str | PurePosixPath, ending: str) -> str:
    """Return where the part of an image lies.

    Names of images are not used: with one more ending they might be longer than the
    system allows.

    Parameters
    ----------
    name : str or PurePosixPath
        Name of the image in the run.
    ending : str
        Kind of part.

    Returns
    -------
    str
        Relative to the output folder, with ``/``.
    """
    digest = hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{PARTS}/{digest[:2]}/{digest}{ending}"


def read_part(out: Path, name: str, ending: str) -> bytes | None:
    """Return what the part of an image holds.

    Parameters
    ----------
    out : Path
        Output folder.
    name : str
        Name of the image in the run.
    ending : str
        Kind of part.

    Returns
    -------
    bytes or None
        None where there is none.
    """
    place = out / part_path(name, ending)
    try:
        return place.read_bytes() if place.is_file() else None
    except OSError:
        return None
