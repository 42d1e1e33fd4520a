"""What was drawn on an image of a folder, and never saved."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.io.raw import READER_ERRORS
from napari_medseg.widgets import _autosave

if TYPE_CHECKING:
    from napari_medseg.widgets._annotation_files import AnnotationFile, Entry
    from napari_medseg.widgets._autosave import Kept


def is_unsaved(entry: Entry) -> bool:
    """Tell whether something of an image waits to be brought back.

    That is what was kept after its annotation was written, or set aside.
    """
    name = _autosave.file_identity(entry.path)
    return bool(_autosave.kept_aside(name)) or _is_newer(_autosave.kept(name), entry)


def unsaved(entry: Entry, file: AnnotationFile) -> Kept | None:
    """Return what was kept of an image, if it fits and is not what was saved.

    What was set aside and is what was saved is removed: it need not wait any more.
    """
    name = _autosave.file_identity(entry.path)
    waiting = []
    for found in _autosave.kept_aside(name):
        if _is_saved(found, file):
            found.path.unlink(missing_ok=True)
        else:
            waiting.append(found)
    last = _autosave.kept(name)
    if last is not None and _is_newer(last, entry) and not _is_saved(last, file):
        waiting.insert(0, last)
    return next((each for each in waiting if each.pixels == prod(file.shape)), None)


def _is_newer(found: Kept | None, entry: Entry) -> bool:
    """Tell whether something was kept after the annotation was written."""
    if found is None or entry.mask is None:
        return found is not None
    try:
        return found.time > entry.mask.stat().st_mtime
    except OSError:
        return True


def _is_saved(found: Kept, file: AnnotationFile) -> bool:
    if found.pixels != prod(file.shape):
        return False
    try:
        kept = found.read().reshape(file.shape)
    except READER_ERRORS:
        return False  # offered all the same: the user is told what is wrong
    if file.labels is None:
        return not kept.any()
    return np.array_equal(kept, file.labels)
