"""Sentences that leave a docked panel as narrow as it is."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

USUAL, NARROWEST = 260, 120
"""Widths in pixels that sentences ask for, and that they are content with."""

BREAKS = re.compile(r"([/\\_-]|\.(?!\d))(?=\w)")
"""Where paths and names may be broken: after marks, though not inside a number."""


class Words(QLabel):
    """Wraps sentences; paths and other long words also in their middle.

    A plain label asks for the width in which its text looks best, and never breaks a
    word: a path or a long sentence would make the panel wider.

    Parameters
    ----------
    name : str
        Name of the control.
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, name: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self._plain = ""

    def setText(self, sentence: str) -> None:
        """Show a sentence, as it stands."""
        breakable = BREAKS.sub("\\1\u200b", sentence)
        self.show_rich(html.escape(breakable).replace("\n", "<br>"), sentence)

    def show_rich(self, rich: str, plain: str = "") -> None:
        """Show rich text, and remember what it says in plain words."""
        self._plain = plain or rich
        super().setText(rich)

    def text(self) -> str:
        """Return what is shown."""
        return self._plain

    def sizeHint(self) -> QSize:
        """Return the usual width, with the height that the text has there."""
        return QSize(USUAL, self.heightForWidth(USUAL))

    def minimumSizeHint(self) -> QSize:
        """Return the least width; the height is that of the width there is."""
        return QSize(NARROWEST, self.heightForWidth(max(self.width(), NARROWEST)))
