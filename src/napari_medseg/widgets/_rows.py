"""The list of annotated images, with what is wrong with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtWidgets import QWidget

    from napari_medseg.widgets._annotated import Row

MARKS = {"good": "✓", "warning": "⚠", "error": "✗"}
"""What stands before an image in the list."""

HEIGHT = 90
"""Pixels; a docked panel has little room."""


class RowList(QListWidget):
    """Shows annotated images and what is wrong with each.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("images found")
        self.setToolTip("The annotated images, and what is wrong with each")
        self.setMaximumHeight(HEIGHT)
        # a bar would hide the last row, and what is wrong is to be read at once
        self.setWordWrap(True)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_rows(self, rows: Sequence[Row]) -> str:
        """Show rows, and return in a sentence how many are good."""
        self.clear()
        for row in rows:
            text = f"{MARKS[row.severity]} {row.name}: {row.told}"
            item = QListWidgetItem(text)
            item.setToolTip(text)
            self.addItem(item)
        good = sum(row.severity == "good" for row in rows)
        return f"{good} of {len(rows)} without a problem."
