"""What a folder of annotations says of itself, and where an image folder has its own.

A small JSON file beside the annotations holds what their values mean, and which
images were looked at without anything being found on them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.weights import weights_folder
from napari_medseg.widgets import _autosave
from napari_medseg.widgets._annotated import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "medseg.json"
"""Name of the note."""

ANNOTATIONS = "annotations"
"""Folder of the annotations in that of the images, unless the user chose another."""

CHOSEN = "folders.json"
"""Which folder of annotations the user chose for which images; beside the autosaves."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted beside annotations.

    Attributes
    ----------
    kind : str or None
        What the values mean: ``dense``, ``sparse`` or ``instances``.
    empty : frozenset of str
        Images without anything on them, by their names in the list.
    """

    kind: str | None = None
    empty: frozenset[str] = frozenset()


def read_note(folder: Path) -> Note:
    """Return the note of a folder; an empty one where there is none to be read."""
    found = _read(folder / FILE)
    kind, empty = found.get("annotation"), found.get("empty")
    names = empty if isinstance(empty, list) else []
    return Note(
        kind if kind in KINDS else None,
        frozenset(name for name in names if isinstance(name, str)),
    )


def write_note(folder: Path, note: Note) -> None:
    """Write the note of a folder; nothing happens where it says so already.

    Raises
    ------
    OSError
        It cannot be written.
    """
    if note != read_note(folder):
        plain = {"annotation": note.kind, "empty": sorted(note.empty)}
        _write(folder / FILE, plain)


def annotations_of(images: Path) -> Path:
    """Return the folder of the annotations of a folder of images.

    Parameters
    ----------
    images : Path
        The images.

    Returns
    -------
    Path
        The one that was chosen for them last, or ``annotations`` among them.
    """
    chosen = _read(_chosen()).get(os.path.abspath(images))
    return Path(chosen) if isinstance(chosen, str) else images / ANNOTATIONS


def remember_annotations(images: Path, annotations: Path) -> None:
    """Remember which folder of annotations the user chose.

    Raises
    ------
    OSError
        It cannot be written.
    """
    place = os.path.abspath(annotations)
    found = _read(_chosen()) | {os.path.abspath(images): place}
    _write(_chosen(), found)


def _chosen() -> Path:
    return weights_folder() / _autosave.FOLDER / CHOSEN


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with atomic_path(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
