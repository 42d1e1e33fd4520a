"""A part of a form that is folded away until somebody wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize
from superqt import QCollapsible

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

MARKS = {False: "▸", True: "▾"}
"""What stands before the title, in its colour: the icons are black in any theme."""


class Folded(QCollapsible):
    """A title, and what is shown below it when it is clicked.

    Parameters
    ----------
    title : str
        The title.
    content : QWidget
        What is folded away.
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__("", expandedIcon=" ", collapsedIcon=" ")
        self.toggleButton().setIconSize(QSize(1, 1))
        self.toggleButton().setToolTip("Click to unfold, or to fold away again")
        self._title = title
        # little but the title is left of what is folded
        layout = self.layout()
        if layout is not None:
            layout.setContentsMargins(0, 0, 0, 0)
            layout.setSpacing(4)
        self.addWidget(content)
        self.toggled.connect(self._mark)
        self._mark(False)

    def _mark(self, is_expanded: bool) -> None:
        self.setText(f"{MARKS[is_expanded]} {self._title}")
