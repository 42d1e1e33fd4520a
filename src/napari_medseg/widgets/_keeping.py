"""What is drawn is kept on disk while it is drawn, and a button brings it back."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton

from napari_medseg.widgets import _autosave
from napari_medseg.widgets._kind import noted_kind

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_medseg.widgets._autosave import Kept
    from napari_medseg.widgets._canvas import AnnotationCanvas
    from napari_medseg.widgets._folder import FolderSession

DELAY = 3000
"""Milliseconds after the last change that an annotation is kept."""


class BringBack(QPushButton):
    """Keeps what is drawn; to be seen where something can be brought back.

    Parameters
    ----------
    folder : FolderSession
        Knows which images of a folder are saved already.
    keeper : Keeper
        Keeps what is drawn.
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    brought_back : Signal
        With what the values of the annotation mean.
    told : Signal
        With a sentence for the user.
    """

    brought_back = Signal(str)
    told = Signal(str)

    def __init__(
        self,
        folder: FolderSession,
        keeper: _autosave.Keeper,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("restore")
        self.setToolTip("Take what was drawn before the last crash or close")
        self.setVisible(False)
        self.clicked.connect(self._on_clicked)
        self._folder = folder
        self._keeper = keeper
        self._canvas: AnnotationCanvas | None = None
        self._offered: Kept | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self._keep)

    def watch(self, canvas: AnnotationCanvas) -> None:
        """Keep an annotation from now on, and offer what was kept of it before."""
        self._canvas = canvas
        of_folder = self._folder.is_open(canvas.annotation)
        found = self._folder.kept if of_folder else _kept_of(canvas)
        self._offered = found
        self.setVisible(found is not None)
        if found is not None:
            when = datetime.datetime.fromtimestamp(found.time)
            self.setText(f"Bring back that of {when:%d %B, %H:%M}")

    def let_go(self) -> None:
        """Keep nothing more of it: it was saved."""
        self._canvas = self._offered = None
        self._timer.stop()
        self.setVisible(False)

    def on_drawn(self) -> None:
        """Keep what is drawn, once the user has stopped for a moment."""
        self._timer.start()

    def _keep(self) -> None:
        canvas = self._canvas
        if canvas is None:
            return
        name, layer = _autosave.identity(canvas.image), canvas.annotation
        if self._folder.is_open(layer):
            if not self._folder.is_drawn:
                return  # it was saved meanwhile
            name = self._folder.identity
        kind = noted_kind(layer) or "dense"
        trouble = self._keeper.keep(name, np.array(layer.data), kind)
        if trouble:
            self.told.emit(f"The annotation cannot be kept: {trouble}.")

    def _on_clicked(self) -> None:
        self.setVisible(False)
        canvas, found = self._canvas, self._offered
        if canvas is None or found is None:
            return
        try:
            labels = found.read()
        except (OSError, ValueError) as error:
            self.told.emit(f"It cannot be brought back: {error}.")
            return
        canvas.annotation.data = labels.reshape(canvas.annotation.data.shape)
        self.brought_back.emit(found.kind)


def _kept_of(canvas: AnnotationCanvas) -> Kept | None:
    """Return what was kept of an image, where its annotation is still empty."""
    found = _autosave.kept(_autosave.identity(canvas.image))
    data = canvas.annotation.data
    if found is None or found.pixels != data.size or data.any():
        return None
    return found
