"""A form that is taller than the window it is docked in."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget

LOWEST = 200
"""Height in pixels that a window must spare for a form."""


class Scrolled(QScrollArea):
    """Scrolls a form up and down where there is no room for all of it.

    Parameters
    ----------
    content : QWidget
        The form; it is as wide as it needs to be.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self._content = content
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        """Return the content's width, with room for the bar, and some height."""
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(self._content.minimumSizeHint().width() + bar, LOWEST)

    def sizeHint(self) -> QSize:
        """Return a size in which nothing needs to be scrolled."""
        return self._content.sizeHint().expandedTo(self.minimumSizeHint())
