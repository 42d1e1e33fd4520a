"""Thumbnails of image files, made on threads when somebody looks at them."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap

from napari_medseg.io.images import read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.widgets._background import Background

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 64
"""Longest side of a thumbnail in pixels."""

KEPT = 1000
"""Most thumbnails that are kept: 16 MB of them."""

ASKED = 40
"""Most thumbnails that are waited for: what was scrolled past long ago is not made."""


class Thumbnails(QObject):
    """Gives thumbnails of files: at once where they were made, else later.

    Parameters
    ----------
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    made : Signal
        With the path of a file whose thumbnail is there now.
    failed : Signal
        With the path of a file that cannot be read, and a sentence.
    """

    made = Signal(object)
    failed = Signal(object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._kept: OrderedDict[Path, QIcon] = OrderedDict()
        self._asked: OrderedDict[Path, None] = OrderedDict()
        self._refused: set[Path] = set()
        self._threads = Background("medseg-thumbnails", 2, drop=True, parent=self)

    def of(self, path: Path) -> QIcon | None:
        """Return the thumbnail of a file; None where it is yet to be made."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        if path not in self._asked and path not in self._refused:
            self._asked[path] = None
            if len(self._asked) > ASKED:
                self._asked.popitem(last=False)
            self._threads.submit(
                partial(self._make, path),
                partial(self._on_made, path),
                partial(self._on_failed, path),
            )
        return None

    def forget(self) -> None:
        """Drop all that is kept or waited for: another folder is shown."""
        self._kept.clear()
        self._asked.clear()
        self._refused.clear()

    def _make(self, path: Path) -> QImage | None:
        """Make a thumbnail, unless nobody waits for it any more. On a thread."""
        if path not in self._asked:
            return None
        pixels = thumbnail(path)
        height, width = pixels.shape[:2]
        picture = QImage(
            pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888
        )
        # a copy, because the pixels do not outlive this function
        return picture.copy().scaled(
            SIDE,
            SIDE,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )

    def _on_made(self, path: Path, picture: QImage | None) -> None:
        if picture is None or path not in self._asked:
            return
        del self._asked[path]
        self._kept[path] = _icon(picture)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        self.made.emit(path)

    def _on_failed(self, path: Path, error: Exception) -> None:
        self._asked.pop(path, None)
        self._refused.add(path)
        self.failed.emit(path, str(error))


def _icon(picture: QImage) -> QIcon:
    """Return a picture in the middle of a square, so that all take the same room."""
    square = QPixmap(SIDE, SIDE)
    square.fill(Qt.GlobalColor.transparent)
    painter = QPainter(square)
    left, top = (SIDE - picture.width()) // 2, (SIDE - picture.height()) // 2
    painter.drawImage(left, top, picture)
    painter.end()
    icon = QIcon(square)
    icon.addPixmap(square, QIcon.Mode.Selected)  # not tinted
    return icon


def thumbnail(path: Path) -> NDArray[Any]:
    """Return a small picture of an image; of a stack, of its middle.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        ``uint8 (y, x, 3)``, at most eight times `SIDE` long, stretched to the full
        range of brightness.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    image = read_image(path)
    indices = list(image.indices())
    sample = image.sample(indices[len(indices) // 2])
    step = -(-max(sample.shape[1:]) // (8 * SIDE))
    small = sample[:, ::step, ::step]
    usual = Normalisation.for_channels(len(small), image.rgb)
    scaled = np.moveaxis(normalise(small, usual), 0, -1)
    return np.ascontiguousarray(np.rint(255 * scaled), np.uint8)
