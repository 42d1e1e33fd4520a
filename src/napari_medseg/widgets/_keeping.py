"""What is drawn is kept on disk while it is drawn, and a button brings it back."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_medseg.io.raw import READER_ERRORS
from napari_medseg.widgets import _autosave
from napari_medseg.widgets._kind import noted_kind
from napari_medseg.widgets._timers import timer_once

if TYPE_CHECKING:
    from napari_medseg.widgets._autosave import Kept
    from napari_medseg.widgets._canvas import AnnotationCanvas
    from napari_medseg.widgets._folder import FolderSession

DELAY = 3000
"""Milliseconds after a change that an annotation is kept, at most."""


class BringBack(QWidget):
    """Keeps what is drawn; to be seen where something can be brought back.

    What is offered lies in files of its own, so that nothing that is drawn meanwhile
    takes its place.

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
        self._restore = QPushButton()
        self._restore.setObjectName("restore")
        self._restore.setToolTip("Take what was drawn before the last crash or close")
        self._restore.clicked.connect(self._on_restore_clicked)
        forget = QPushButton("Forget it")
        forget.setObjectName("forget")
        forget.setToolTip("Remove it from the disk; it is not offered again")
        forget.clicked.connect(self._on_forget_clicked)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._restore, 1)
        row.addWidget(forget)
        self.setVisible(False)
        self._folder = folder
        self._keeper = keeper
        self._canvas: AnnotationCanvas | None = None
        self._name = ""
        self._mine: set[str] = set()
        self._offered: list[Kept] = []
        self._timer = timer_once(self, DELAY, self._on_time)

    def watch(self, canvas: AnnotationCanvas) -> None:
        """Keep an annotation from now on, and offer what was kept of it before."""
        self.flush()
        of_folder = self._folder.is_open(canvas.annotation)
        name = self._folder.identity if of_folder else _autosave.identity(canvas.image)
        self._canvas, self._name = canvas, name
        found = self._folder.kept if of_folder else self._kept_before(canvas)
        self._offered = [] if found is None else [found]
        try:
            if found is not None and found.path.stem == name:
                _autosave.set_aside(name)
        except OSError as error:
            self.told.emit(f"Nothing new is kept: the old cannot be moved: {error}.")
        else:
            size = canvas.annotation.data.size
            aside = _autosave.kept_aside(name)
            self._offered = [each for each in aside if each.pixels == size]
        self._offer()

    def let_go(self) -> None:
        """Keep nothing more of it: it is saved."""
        self._canvas = None
        self._offered = []
        self._timer.stop()
        self._offer()

    def on_drawn(self) -> None:
        """Keep what is drawn soon, also while the user goes on drawing."""
        if not self._timer.isActive():
            self._timer.start()

    def flush(self) -> None:
        """Keep now what was to be kept soon."""
        if self._timer.isActive():
            self._timer.stop()
            self._keep()

    def _kept_before(self, canvas: AnnotationCanvas) -> Kept | None:
        """Return what was kept of an image, where that is not what is being drawn."""
        data = np.asarray(canvas.annotation.data)
        if self._name in self._mine:
            if data.any():
                return None
            self._keeper.finish()  # the layer was removed just now
        found = _autosave.kept(self._name)
        if found is None or found.pixels != data.size:
            return None
        try:
            same = np.array_equal(found.read().ravel(), data.ravel())
        except READER_ERRORS:
            same = False  # offered all the same: the user is told what is wrong
        return None if same else found

    def _on_time(self) -> None:
        if self._keeper.is_writing:
            self._timer.start()  # a large stack: no second copy waits in memory
        else:
            self._keep()

    def _keep(self) -> None:
        canvas, name = self._canvas, self._name
        if canvas is None or any(each.path.stem == name for each in self._offered):
            return
        layer = canvas.annotation
        if self._folder.is_open(layer) and not self._folder.is_drawn:
            return  # it was saved meanwhile
        labels = np.array(layer.data)
        if not labels.any():
            if name in self._mine:
                self._keeper.forget(name)  # all was undone or erased
            return
        kind = noted_kind(layer) or "dense"
        self._mine.add(name)
        trouble = self._keeper.keep(name, labels, kind)
        if trouble:
            self.told.emit(f"The annotation cannot be kept: {trouble}.")

    # ------------------------------------------------------------- what is offered

    def _offer(self) -> None:
        self.setVisible(bool(self._offered))
        if self._offered:
            when = datetime.datetime.fromtimestamp(self._offered[0].time)
            self._restore.setText(f"Bring back that of {when:%d %B, %H:%M}")

    def _on_restore_clicked(self) -> None:
        canvas = self._canvas
        if canvas is None or not self._offered:
            return
        found, *others = self._offered
        try:
            labels = found.read().reshape(canvas.annotation.data.shape)
            replaced = self._set_drawn_aside(canvas)
        except READER_ERRORS as error:
            self.told.emit(f"It cannot be brought back: {error}.")
            return
        self._offered = replaced + others
        self._offer()
        canvas.annotation.data = labels
        self.brought_back.emit(found.kind)
        self._timer.stop()
        self._keep()
        self._keeper.replaced(found)

    def _set_drawn_aside(self, canvas: AnnotationCanvas) -> list[Kept]:
        """Write what is brought back over elsewhere, so that it is offered in turn."""
        layer = canvas.annotation
        is_saved = self._folder.is_open(layer) and not self._folder.is_drawn
        labels = np.asarray(layer.data)
        if is_saved or not labels.any():
            return []
        kind = noted_kind(layer) or "dense"
        path = _autosave.keep_aside(self._name, labels, kind)
        return [each for each in _autosave.kept_aside(self._name) if each.path == path]

    def _on_forget_clicked(self) -> None:
        if self._offered:
            self._keeper.replaced(self._offered.pop(0))
            self._offer()
