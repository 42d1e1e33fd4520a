"""What is drawn, undone and redone on an image of a folder since it was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_medseg.widgets._drawn import Drawn
from napari_medseg.widgets._timers import timer_once

if TYPE_CHECKING:
    import napari

    from napari_medseg.widgets._open_image import OpenImage

REST = 300
"""Milliseconds after which it is found out whether something was undone."""


class Unsaved(QObject):
    """Tells when the annotation of an open image is no longer what was saved.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    drawn : Signal
        Something was drawn, or undone since it was saved.
    """

    drawn = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._found: OpenImage | None = None
        self._layer = Drawn(viewer, self)
        self._layer.drawn.connect(self._on_drawn)
        self._layer.perhaps.connect(self._on_perhaps)
        self._rest = timer_once(self, REST, self._look)

    def watch(self, found: OpenImage) -> None:
        """Tell of this image from now on."""
        self._found = found
        self._layer.watch(found.annotation)

    def stop(self) -> None:
        """Look at nothing more: all that is there is being saved."""
        self._rest.stop()

    def look(self) -> None:
        """Find out at once what was to be found out soon."""
        if self._rest.isActive():
            self._look()

    def on_saved(self, found: OpenImage, shown: int) -> None:
        """Look again, if something may have been undone while it was being saved."""
        if found is self._found and found.shown != shown:
            self._rest.start()

    def _on_drawn(self) -> None:
        self._rest.stop()
        self.drawn.emit()

    def _on_perhaps(self) -> None:
        if self._found is not None:
            self._found.shown += 1
            if not self._found.is_drawn:
                self._rest.start()

    def _look(self) -> None:
        self._rest.stop()
        if self._found is not None and self._found.differs():
            self.drawn.emit()
