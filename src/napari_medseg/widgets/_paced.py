"""Progress that comes faster than anybody looks, shown a few times a second."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

if TYPE_CHECKING:
    from napari_medseg._types import Progress

REDRAWN = 250
"""Milliseconds between two reports; each repaints the window."""


class PacedProgress(QObject):
    """Passes on the latest progress, and the latest preview with it.

    Parameters
    ----------
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    shown : Signal
        With a `Progress`: the first at once, later ones at their time.
    """

    shown = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._latest: Progress | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(REDRAWN)
        self._timer.timeout.connect(self.flush)

    def take(self, progress: Progress) -> None:
        """Take a report."""
        if progress.preview is None and self._latest is not None:
            progress = replace(progress, preview=self._latest.preview)
        self._latest = progress
        if not self._timer.isActive():
            self.flush()
            self._timer.start()

    def flush(self) -> None:
        """Pass on what was taken last, if it was not yet."""
        progress, self._latest = self._latest, None
        if progress is not None:
            self.shown.emit(progress)

    def stop(self) -> None:
        """Forget what was not passed on: the job has ended."""
        self._latest = None
        self._timer.stop()
