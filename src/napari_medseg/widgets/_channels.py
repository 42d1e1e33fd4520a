"""A line for the channels of image files that a model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QRegularExpression
from qtpy.QtGui import QRegularExpressionValidator
from qtpy.QtWidgets import QLineEdit, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence


class Channels(QLineEdit):
    """Lets the user say which channels are seen; empty for no choice.

    Parameters
    ----------
    usual : str
        What is seen where the line is empty, in a word or two.
    tip : str
        What the choice is for.
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, usual: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("channels")
        self.setPlaceholderText(usual)
        self.setToolTip(
            f"{tip} The first channel is 0; with commas between where there are "
            "several, such as 0,2"
        )
        allowed = QRegularExpression(r"[0-9]{0,3}(\s*,\s*[0-9]{0,3})*")
        self.setValidator(QRegularExpressionValidator(allowed, self))

    @property
    def numbers(self) -> list[int]:
        """The channels from 0, in the order that they are wanted."""
        words = map(str.strip, self.text().split(","))
        return [int(word) for word in words if word.isdecimal()]

    def show_numbers(self, numbers: Sequence[int]) -> None:
        """Show a choice."""
        self.setText(", ".join(map(str, numbers)))
